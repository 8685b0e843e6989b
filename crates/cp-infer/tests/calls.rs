//! How a network is called: memory, threads, rounds of images, and what is refused.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{initialized, inputs, run, views};
use cp_infer::{Compiled, Options, Watch};
use cp_net::arch::{Builder, window};
use cp_net::{Architecture, Form, InputSpec, Network, Node, Relu, arch};
use ndarray::{ArrayD, Axis, IxDyn};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
struct Counted;

#[allow(unsafe_code, reason = "an allocator is unsafe to write; this one only counts")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is the one that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn resnet() -> Network {
    let mut arch = arch::by_name("resnet20").unwrap();
    for layer in ["layer1.0.conv1", "layer3.1.conv2"] {
        arch.factorize(layer, Form::Cp3, 13).unwrap();
    }
    initialized(&arch, 3)
}

/// A network with every kind of layer that threads share, all of them large enough.
fn wide() -> Network {
    let mut arch = Builder::new("wide", InputSpec::imagenet(101))
        .conv("first", 70, window(7).stride(2).pad(3))
        .conv("winograd", 70, window(3).pad(1))
        .conv("chain", 333, window(3).pad(1))
        .conv("passes", 350, window(3).stride(2).pad(1))
        .depthwise("depthwise", window(3).pad(1))
        .conv("pointwise", 270, window(1))
        .conv("strided", 240, window(2).stride(2))
        .conv("small", 240, window(3).stride(2).pad(1))
        .conv("one", 480, window(7))
        .flatten("flatten")
        .linear("linear", 10)
        .build()
        .unwrap();
    arch.factorize("chain", Form::Cp3, 50).unwrap();
    arch.factorize("passes", Form::Cp4, 50).unwrap();
    initialized(&arch, 3)
}

#[test]
fn a_call_allocates_nothing_after_the_first() {
    let net = resnet();
    let compiled = Compiled::new(&net, &Options::default()).unwrap();
    let x = inputs(&net, 5, 1);
    let mut y = vec![0.0; 50];
    let mut call = || {
        compiled.run_into(5, &[x[0].as_slice().unwrap()], &mut [&mut y]).unwrap();
    };
    call();
    let before = ALLOCATIONS.with(Cell::get);
    call();
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
}

#[test]
fn memory_is_known_before() {
    let net = resnet();
    let memory = |batch, threads| {
        let options = Options::default().batch(batch).threads(threads);
        Compiled::new(&net, &options).unwrap().peak_memory()
    };
    // Two maps of 16 × 32 × 32 numbers that a block of layers needs at once, and less than ten.
    let map = 16 * 32 * 32 * size_of::<f32>();
    assert!((2 * map..10 * map).contains(&memory(1, 1)), "{}", memory(1, 1));
    // Images run one behind the other, so that more of them need little more.
    assert!(memory(64, 1) < 3 * memory(4, 1), "{} {}", memory(64, 1), memory(4, 1));
    assert!(memory(8, 2) <= 3 * memory(8, 1));
}

#[test]
fn results_do_not_depend_on_threads_nor_on_the_other_images() {
    for net in [resnet(), wide()] {
        let x = inputs(&net, 3, 1);
        let expected = run(&net, &Options::default().batch(16), &x);
        // Fewer threads than images, as many, and more, which share the work of each layer.
        for (batch, threads) in [(1, 1), (2, 1), (3, 2), (4, 3), (16, 4), (16, 9), (1, 64)] {
            let options = Options::default().batch(batch).threads(threads);
            assert_eq!(run(&net, &options, &x), expected, "batch {batch}, {threads} threads");
        }
    }
    let net = resnet();
    let x = inputs(&net, 7, 1);
    let expected = run(&net, &Options::default(), &x);
    let one = vec![x[0].slice_axis(Axis(0), (4..5).into()).to_owned()];
    let alone = run(&net, &Options::default(), &one);
    assert_eq!(alone[0].index_axis(Axis(0), 0), expected[0].index_axis(Axis(0), 4));
}

#[test]
fn one_network_runs_on_several_threads_at_once() {
    let net = resnet();
    let compiled = Compiled::new(&net, &Options::default()).unwrap();
    let x = inputs(&net, 2, 1);
    let expected = compiled.run(&views(&x)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(compiled.run(&views(&x)).unwrap(), expected));
        }
    });
}

#[test]
fn other_layouts_of_the_input_and_no_images() {
    let net = resnet();
    let compiled = Compiled::new(&net, &Options::default()).unwrap();
    let x = inputs(&net, 2, 1).remove(0);
    let turned = x.view().permuted_axes(IxDyn(&[0, 1, 3, 2]));
    let expected = compiled.run(&[turned.as_standard_layout().view()]).unwrap();
    assert_eq!(compiled.run(&[turned]).unwrap(), expected);
    let none = compiled.run(&[ArrayD::zeros(IxDyn(&[0, 3, 32, 32])).view()]).unwrap();
    assert_eq!(none[0].shape(), [0, 10]);
}

#[test]
fn an_output_may_be_an_input() {
    let spec = InputSpec::features([3, 4]);
    let relu = Node::new("relu", Relu {}, ["input"]);
    let mut architecture = Architecture::new("same", spec, vec![relu]);
    architecture.outputs = vec!["input".into(), "relu".into(), "input".into()];
    let net = architecture.initialize(1).unwrap();
    let x = inputs(&net, 20, 1);
    let y = run(&net, &Options::default(), &x);
    assert_eq!((&y[0], &y[2]), (&x[0], &x[0]));
    assert_eq!(y[1], x[0].mapv(|x| x.max(0.0)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let net = resnet();
    let compiled = Compiled::new(&net, &Options::default()).unwrap();
    let check = |shapes: &[&[usize]], expected: &str| {
        let arrays: Vec<ArrayD<f32>> =
            shapes.iter().map(|shape| ArrayD::zeros(IxDyn(shape))).collect();
        assert_eq!(compiled.run(&views(&arrays)).unwrap_err().to_string(), expected);
    };
    check(
        &[&[2, 3, 32, 31]],
        "input 'input' has shape [2, 3, 32, 31], expected [N, …] with [3, 32, 32] behind the number of images, the same for all inputs",
    );
    check(&[], "0 arrays for the 1 inputs of network 'resnet20'");
    let error = compiled.run_into(1, &[&[0.0; 3 * 32 * 32]], &mut [&mut [0.0; 9]]).unwrap_err();
    assert_eq!(error.to_string(), "output 'linear' has room for 9 numbers, expected 10");
    let error = compiled.run_into(1, &[&[0.0; 3]], &mut [&mut [0.0; 10]]).unwrap_err();
    assert_eq!(error.to_string(), "input 'input' has room for 3 numbers, expected 3072");
}

/// How often each step has run.
struct Counts(Vec<std::sync::atomic::AtomicUsize>);

impl Watch for Counts {
    fn step(&self, index: usize, run: &mut dyn FnMut()) {
        self.0[index].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        run();
    }
}

#[test]
fn a_watch_is_told_of_every_step() {
    let net = resnet();
    for (images, threads) in [(1, 1), (5, 1), (1, 2), (5, 2)] {
        let options = Options::default().threads(threads).batch(8);
        let compiled = Compiled::new(&net, &options).unwrap();
        let x = inputs(&net, images, 3);
        let expected = compiled.run(&views(&x)).unwrap().swap_remove(0);
        let counts = Counts(compiled.steps().iter().map(|_| 0.into()).collect());
        let mut y = vec![0.0; expected.len()];
        let given = x[0].as_slice().unwrap();
        compiled.run_watched(images, &[given], &mut [&mut y[..]], &counts).unwrap();
        assert_eq!(y, expected.as_slice().unwrap());
        for (count, step) in counts.0.into_iter().zip(compiled.steps()) {
            let count = count.into_inner();
            assert!((1..=images).contains(&count), "{step:?} ran {count} times");
        }
    }
}
