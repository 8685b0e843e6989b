//! All built-in architectures against the definition of their ops.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use common::{distance, initialized, inputs};
use cp_infer::{Compiled, Options};
use cp_net::arch;

fn check(name: &str, shape: [usize; 3], images: usize) {
    let arch = arch::by_name(name).unwrap().with_input_shape(shape).unwrap();
    let net = initialized(&arch, 3);
    let x = inputs(&net, images, 5);
    let views: Vec<_> = x.iter().map(|x| x.view()).collect();
    let t = std::time::Instant::now();
    let expected = net.eval(&views).unwrap();
    let slow = t.elapsed();
    let t = std::time::Instant::now();
    let compiled = Compiled::new(&net, &Options::default()).unwrap();
    let made = t.elapsed();
    let t = std::time::Instant::now();
    let found = compiled.run(&views).unwrap();
    println!(
        "{name}: eval {slow:?} compile {made:?} run {:?} far {} slow {:?}",
        t.elapsed(),
        distance(&found[0].view(), &expected[0].view()),
        compiled
            .steps()
            .iter()
            .filter(|s| s.algorithm == "reference")
            .map(|s| s.layer.clone())
            .collect::<Vec<_>>()
    );
    for (found, expected) in found.iter().zip(&expected) {
        let far = distance(&found.view(), &expected.view());
        assert!(far <= 1e-5, "{name}: {far}");
    }
}

#[test]
fn cifar() {
    check("small-cnn", [1, 28, 28], 3);
    check("resnet20", [3, 32, 32], 2);
    check("charnet", [1, 24, 24], 2);
    check("alexnet", [3, 64, 64], 2);
    check("alexnet-caffe", [3, 227, 227], 1);
    check("googlenet", [3, 64, 64], 2);
    check("resnet18", [3, 48, 48], 2);
    check("mobilenet-v2", [3, 48, 48], 2);
    check("efficientnet-b0", [3, 40, 40], 2);
    check("squeezenet1_1", [3, 40, 40], 2);
    check("unet", [1, 64, 64], 2);
    check("yolox-nano", [3, 64, 64], 2);
}
