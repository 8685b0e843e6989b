//! Sessions of small models.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use std::thread;

use common::{PRODUCT, RESHAPE, STRINGS, SUM, TYPES, has_library};
use cp_ort::{
    Dim, ElementType, Inputs, Optimize, OrtError, Session, SessionOptions, Tensor, profile,
};
use half::f16;
use ndarray::{Array, Array2, arr1, arr2};

fn open(model: &[u8]) -> Session {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    Session::new(model, &options).unwrap()
}

fn zeros(rows: usize, columns: usize) -> Tensor {
    Tensor::from(Array2::<f32>::zeros((rows, columns)).into_dyn())
}

#[test]
fn what_a_model_takes_and_gives_is_listed() {
    if !has_library() {
        return;
    }
    let session = open(SUM);
    let input = &session.inputs()[0];
    assert_eq!((input.name.as_str(), &input.ty), ("x", &ElementType::F32));
    assert_eq!(input.dims, [Dim::Free(Some("batch".into())), Dim::Fixed(3)]);
    assert_eq!((input.dims[0].symbol(), input.dims[1].size()), (Some("batch"), Some(3)));
    assert_eq!(session.outputs()[0].to_string(), "float32 [batch, 3]");
    assert_eq!(open(STRINGS).inputs()[0].to_string(), "string [n]");
}

#[test]
fn every_type_goes_in_and_comes_out() {
    if !has_library() {
        return;
    }
    let count = |cell: (usize, usize)| u8::try_from(3 * cell.0 + cell.1).unwrap();
    let cells = Array::from_shape_fn((2, 3), count);
    let inputs = [
        ("f32", Tensor::from(cells.mapv(f32::from).into_dyn())),
        ("f64", Tensor::from(cells.mapv(f64::from).into_dyn())),
        ("f16", Tensor::from(cells.mapv(|x| f16::from_f32(x.into())).into_dyn())),
        ("i64", Tensor::from(cells.mapv(i64::from).into_dyn())),
        ("i32", Tensor::from(cells.mapv(i32::from).into_dyn())),
        ("i8", Tensor::from(cells.mapv(|x| -i8::try_from(x).unwrap()).into_dyn())),
        ("u8", Tensor::from(cells.clone().into_dyn())),
        ("bool", Tensor::from(cells.mapv(|x| x % 2 == 1).into_dyn())),
    ];
    let outputs = open(TYPES).run(&inputs).unwrap();
    assert_eq!(outputs.len(), inputs.len());
    for ((name, input), (output_name, output)) in inputs.iter().zip(&outputs) {
        assert_eq!(output_name, &format!("{name}.t"));
        assert_eq!((output.element_type(), output.shape()), (input.element_type(), &[3, 2][..]));
    }
    assert_eq!(outputs[5].1.as_i8().unwrap(), &arr2(&[[0, -3], [-1, -4], [-2, -5]]).into_dyn());
    assert_eq!(
        outputs[7].1.as_bool().unwrap(),
        &arr2(&[[false, true], [true, false], [false, true]]).into_dyn()
    );
    assert_eq!(outputs[2].1.as_f16().unwrap()[[2, 1]], f16::from_f32(5.0));
    // Back again: arrays whose memory is not in the order of rows, borrowed and taken over.
    let transposed = |(name, array): &(&'static str, Tensor)| match array {
        Tensor::F32(array) => (*name, Tensor::F32(array.clone().reversed_axes())),
        other => (*name, other.clone()),
    };
    let reversed = inputs.each_ref().map(transposed);
    let expected = inputs[0].1.clone();
    assert_eq!(open(TYPES).run(&reversed).unwrap()[0].1, expected);
    let prepared = Inputs::new(reversed).unwrap();
    let mut session = open(TYPES);
    assert_eq!(session.run_prepared(&prepared).unwrap().tensor("f32.t").unwrap(), expected);
}

#[test]
fn prepared_inputs_serve_many_runs_and_sessions() {
    if !has_library() {
        return;
    }
    // A part of a larger array, taken over with what lies before and behind it.
    let all = arr2(&[[9.0_f32; 3], [1.0, 2.0, 3.0], [9.0; 3]]);
    let x = all.slice_move(ndarray::s![1..2, ..]).into_dyn();
    let w = arr2(&[[10.0_f32, 20.0, 30.0]]).into_dyn();
    let inputs = Inputs::new([("w", w.into()), ("x", Tensor::from(x))]).unwrap();
    let expected = Tensor::from(arr2(&[[11.0_f32, 22.0, 33.0]]).into_dyn());
    let (mut one, mut other) = (open(SUM), open(SUM));
    for session in [&mut one, &mut other] {
        for _ in 0..3 {
            let outputs = session.run_prepared(&inputs).unwrap();
            assert_eq!(outputs.to_tensors().unwrap(), [("y".to_owned(), expected.clone())]);
            let error = outputs.tensor("z").unwrap_err().to_string();
            assert!(error.contains("no output 'z'") && error.contains("'y'"), "{error}");
        }
    }
    let mut session = open(RESHAPE);
    let error = session.run_prepared(&inputs).unwrap_err();
    assert!(matches!(error, OrtError::UnknownInput { .. }), "{error}");
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    if !has_library() {
        return;
    }
    let mut session = open(SUM);
    let mut message = |inputs: &[(&str, Tensor)]| session.run(inputs).unwrap_err().to_string();
    let error = message(&[("x", zeros(2, 3))]);
    assert!(error.contains("input 'w' is missing; expected float32 [batch, 3]"), "{error}");
    let error = message(&[("x", zeros(2, 4)), ("w", zeros(2, 3))]);
    assert!(error.contains("'x' has shape [2, 4], expected [batch, 3]"), "{error}");
    let bytes = Tensor::from(Array2::<u8>::zeros((2, 3)).into_dyn());
    let error = message(&[("x", bytes), ("w", zeros(2, 3))]);
    assert!(error.contains("'x' is uint8, expected float32"), "{error}");
    let error = message(&[("x", zeros(2, 3)), ("v", zeros(2, 3))]);
    assert!(error.contains("no input 'v'") && error.contains("'w' float32"), "{error}");
    // And the session still works.
    session.run(&[("x", zeros(2, 3)), ("w", zeros(2, 3))]).unwrap();
}

#[test]
fn strings_are_refused_by_name() {
    if !has_library() {
        return;
    }
    let bytes = Tensor::from(arr1(&[1_u8]).into_dyn());
    let error = open(STRINGS).run(&[("x", bytes)]).unwrap_err();
    assert!(matches!(error, OrtError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("'x' is string"), "{error}");
}

#[test]
fn a_run_that_fails_says_so_in_one_line() {
    if !has_library() {
        return;
    }
    let shape = Tensor::from(arr1(&[5_i64, 7]).into_dyn());
    let error = open(RESHAPE).run(&[("x", zeros(2, 3)), ("s", shape)]).unwrap_err();
    assert!(matches!(error, OrtError::Run { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("'rs'") && text.contains("{2,3}"), "{text}");
    assert!(!text.contains(".h:") && !text.contains("::") && !text.contains('\n'), "{text}");
}

#[test]
fn models_that_are_none_are_errors() {
    if !has_library() {
        return;
    }
    let options = SessionOptions::default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let error = Session::new(&path, &options).unwrap_err();
    assert!(matches!(error, OrtError::Io { .. }), "{error}");
    std::fs::write(&path, &SUM[..SUM.len() - 40]).unwrap();
    for error in [
        Session::new(&path, &options).unwrap_err(),
        Session::new(folder.path(), &options).unwrap_err(),
        Session::new(&b"no model"[..], &options).unwrap_err(),
        Session::new(&b""[..], &options).unwrap_err(),
    ] {
        assert!(matches!(error, OrtError::Model { .. }), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let threads = SessionOptions { threads: 100_000, ..options };
    let error = Session::new(SUM, &threads).unwrap_err();
    assert!(matches!(error, OrtError::Threads { .. }), "{error}");
}

#[test]
fn sessions_on_several_threads_do_not_meet() {
    if !has_library() {
        return;
    }
    let run = |scale: f32| {
        let mut session = open(PRODUCT);
        let w = Tensor::from((Array2::<f32>::eye(32) * scale).into_dyn());
        let x = Tensor::from(Array2::<f32>::ones((32, 32)).into_dyn());
        for _ in 0..50 {
            let outputs = session.run(&[("x", x.clone()), ("w", w.clone())]).unwrap();
            let y = outputs[0].1.as_f32().unwrap();
            assert!(y.iter().all(|&value| (value - scale).abs() < 1e-6), "{scale}");
        }
    };
    thread::scope(|scope| {
        for scale in [1.0, 2.0, 3.0, 4.0] {
            scope.spawn(move || run(scale));
        }
    });
    // Made on one thread, run on another.
    let mut session = open(SUM);
    let work = move || session.run(&[("x", zeros(1, 3)), ("w", zeros(1, 3))]).unwrap().len();
    assert_eq!(thread::spawn(work).join().unwrap(), 1);
}

#[test]
fn a_profile_names_the_nodes() {
    if !has_library() {
        return;
    }
    let options =
        SessionOptions { threads: 1, optimize: Optimize::None, ..SessionOptions::default() };
    let inputs = Inputs::new([("x", zeros(128, 128)), ("w", zeros(128, 128))]).unwrap();
    let times = profile(PRODUCT, &options, &inputs, 2, 5).unwrap();
    let found: Vec<_> = times.iter().map(|t| (t.name.as_str(), t.op.as_str(), t.calls)).collect();
    assert_eq!(found, [("product", "MatMul", 5), ("relu", "Relu", 5)]);
    assert!(times[0].seconds > 0.0 && times[0].seconds < 5.0, "{times:?}");

    // The library's own record stays where it was asked for; two sessions do not share one.
    let folder = tempfile::tempdir().unwrap();
    let options = SessionOptions { profile: Some(folder.path().join("records")), ..options };
    let mut sessions = [(); 2].map(|()| Session::new(PRODUCT, &options).unwrap());
    for session in &mut sessions {
        session.run_prepared(&inputs).unwrap();
        assert_eq!(session.node_times(0).unwrap().len(), 2);
        assert!(matches!(session.node_times(0), Err(OrtError::NotProfiled { .. })));
    }
    assert_eq!(std::fs::read_dir(folder.path().join("records")).unwrap().count(), 2);
    assert!(matches!(open(SUM).node_times(0), Err(OrtError::NotProfiled { .. })));
}
