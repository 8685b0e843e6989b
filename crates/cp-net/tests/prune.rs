//! Terms that count for nothing, taken out of convolutions with CP factors.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use common::{difference, random, run};
use cp_net::{Architecture, Conv, CpConv, INPUT, InputSpec, Network, Node, Op};
use ndarray::{ArrayD, arr1};

fn network(lambda: &[f32]) -> Network {
    let of = |dense: Conv, weights| {
        let dense = Conv { padding: cp_net::Padding::symmetric([1, 1]), ..dense };
        CpConv { weights, ..CpConv::of(&dense, lambda.len()) }
    };
    let nodes = vec![
        Node::new("one", of(Conv::new(2, 4, [3, 3]), true), [INPUT]),
        Node::new("two", of(Conv::new(4, 3, [3, 3]), false), ["one"]),
    ];
    let arch = Architecture::new("pruned", InputSpec::features([2, 6, 5]), nodes);
    let mut net = arch.initialize(3).unwrap();
    net.set_param("one.weights", arr1(lambda).into_dyn()).unwrap();
    net
}

fn rank(net: &Network, layer: &str) -> usize {
    let Op::CpConv(op) = &net.nodes().iter().find(|node| node.name == layer).unwrap().op else {
        panic!()
    };
    op.rank
}

#[test]
fn what_is_zero_goes_and_nothing_changes() {
    let net = network(&[0.5, 0.0, -2.0, 0.0, 1e-6]);
    let x: ArrayD<f32> = random(&[2, 2, 6, 5], 1);
    let before = run(&net, std::slice::from_ref(&x)).remove(0);
    let mut pruned = net.clone();
    assert_eq!(pruned.prune_terms(0.0).unwrap(), [("one".to_owned(), 2)]);
    // The other layer has no λ.
    assert_eq!((rank(&pruned, "one"), rank(&pruned, "two")), (3, 5));
    assert!(difference(&run(&pruned, std::slice::from_ref(&x)).remove(0), &before) < 1e-6);
    assert_eq!(pruned.params()["one.weights"], arr1(&[0.5, -2.0, 1e-6]).into_dyn());
    assert!(pruned.param_count() < net.param_count());
    assert!(pruned.prune_terms(0.0).unwrap().is_empty());
    // By size: the third is 5e-7 of the largest.
    assert_eq!(pruned.prune_terms(1e-3).unwrap(), [("one".to_owned(), 1)]);
    // What is left is a network: saved, read, run.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pruned.safetensors");
    pruned.save(&path).unwrap();
    let again = Network::load(&path).unwrap();
    assert!(difference(&run(&again, &[x]).remove(0), &before) < 1e-4);
}

#[test]
fn one_term_stays() {
    for (lambda, share) in [([0.0; 4], 0.0), ([1.0; 4], 1.0), ([3.0, -3.0, 1.0, 2.0], 2.0)] {
        let mut net = network(&lambda);
        assert_eq!(net.prune_terms(share).unwrap(), [("one".to_owned(), 3)]);
        assert_eq!(net.params()["one.output"].shape(), [4, 1]);
    }
}
