//! Files put together by hand: what is read, what is refused, and files that are made to do harm.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use common::*;
use cp_net::arch;
use cp_pytorch::{CheckpointError, PyTorchError, StateDictOptions, state_dict};

const VALUES: [f32; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

/// A tensor of storage `0` of six numbers.
fn view(offset: i64, sizes: &[i64], strides: &[i64]) -> Vec<u8> {
    tensor(storage("torch.FloatStorage", "0", 6), offset, sizes, strides)
}

#[test]
fn views_of_one_storage() {
    let opcodes = dict(&[
        ("a.weight", view(0, &[2, 3], &[3, 1])),
        ("a.turned", view(0, &[3, 2], &[1, 3])),
        ("a.part", view(4, &[2], &[1])),
        ("a.expanded", view(5, &[2, 2], &[0, 0])),
        ("a.scalar", view(3, &[], &[])),
        ("a.none", view(0, &[0], &[1])),
    ]);
    for bytes in [file(&opcodes, &VALUES), old_file(&opcodes, &VALUES)] {
        let read = read(&bytes, None).unwrap();
        let check = |name: &str, shape: &[usize], expected: &[f32]| {
            let array = &read.arrays()[name];
            assert_eq!((array.shape(), array.as_slice()), (shape, Some(expected)), "{name}");
        };
        check("a.weight", &[2, 3], &VALUES);
        check("a.turned", &[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        check("a.part", &[2], &[4.0, 5.0]);
        check("a.expanded", &[2, 2], &[5.0; 4]);
        check("a.scalar", &[], &[3.0]);
        check("a.none", &[0], &[]);
    }
}

#[test]
fn a_view_of_a_storage_before_1_6() {
    // Its key, its first element, its number of elements.
    let part = [b"(".to_vec(), text("1"), int(2), int(3), b"t".to_vec()].concat();
    let parts =
        [text("storage"), global("torch.FloatStorage"), text("0"), text("cpu"), int(6), part];
    let part = [b"(".to_vec(), parts.concat(), b"tQ".to_vec()].concat();
    let at = |offset| dict(&[("w", tensor(part.clone(), offset, &[2], &[1]))]);
    let found = read(&old_file(&at(1), &VALUES), None).unwrap();
    assert_eq!(found.arrays()["w"].as_slice(), Some(&[3.0, 4.0][..]));
    refused(&old_file(&at(2), &VALUES), None, "'w' reaches out of its storage of 3 elements");
}

#[test]
fn types_of_elements() {
    let check = |class: &str, bytes: &[u8], count: i64, expected: &str| {
        let opcodes = dict(&[("w", tensor(storage(class, "0", count), 0, &[count], &[1]))]);
        let text = match read(&saved(&pickle(&opcodes), &[bytes]), None) {
            Ok(found) => format!("{:?} {:?}", found.arrays().get("w"), found.integers().get("w")),
            Err(error) => error.to_string(),
        };
        assert!(text.contains(expected), "{class}: {text}");
    };
    check("torch.DoubleStorage", &1.5_f64.to_le_bytes(), 1, "Some([1.5]");
    check("torch.HalfStorage", &[0, 0x3c], 1, "Some([1.0]");
    check("torch.BFloat16Storage", &[0x80, 0x3f], 1, "Some([1.0]");
    check("torch.cuda.FloatStorage", &1_f32.to_le_bytes(), 1, "Some([1.0]");
    check("torch.LongStorage", &7_i64.to_le_bytes(), 1, "None Some([7]");
    check("torch.ByteStorage", &[255], 1, "None Some([255]");
    check("torch.BoolStorage", &[1], 1, "None Some([1]");
    check("torch.ComplexFloatStorage", &[0; 8], 1, "'w' is complex, which is not read");
    check(
        "torch.QInt8Storage",
        &[0],
        1,
        "'w' is quantized, which is not read; save it dequantized",
    );
    check("torch.FloatStorage", &[0; 3], 1, "'w' has a storage of 3 bytes instead of 4");
    check(
        "torch.DoubleStorage",
        &1e200_f64.to_le_bytes(),
        1,
        "1 values that are too large for f32",
    );
    check("own.Storage", &[0], 1, "w (an object of `own.Storage`)");
}

#[test]
fn untyped_storages_with_the_type_beside() {
    let parts = [
        storage("torch.storage.UntypedStorage", "0", 4),
        int(0),
        ints(&[2]),
        ints(&[1]),
        b"\x89".to_vec(),
        call("collections.OrderedDict", &[]),
        global("torch.uint16"),
    ];
    let opcodes = dict(&[("w", call("torch._utils._rebuild_tensor_v3", &parts))]);
    let found = read(&saved(&pickle(&opcodes), &[&[1, 0, 0xff, 0xff]]), None).unwrap();
    assert_eq!(found.integers()["w"].as_slice(), Some(&[1, 65535][..]));
}

#[test]
fn parameters_and_sizes() {
    let parts = [vector(2), b"\x88".to_vec(), call("collections.OrderedDict", &[])];
    let parameter = call("torch._utils._rebuild_parameter", &parts);
    let parts = [
        storage("torch.FloatStorage", "0", 2),
        int(0),
        call("torch.Size", &[ints(&[2])]),
        ints(&[1]),
    ];
    let oldest = call("torch._utils._rebuild_tensor", &parts);
    let found = read(&file(&dict(&[("p", parameter), ("t", oldest)]), &[1.0, 2.0]), None).unwrap();
    assert_eq!(found.arrays()["p"], found.arrays()["t"]);
}

/// Something of every kind that training programs put beside the weights, none of which is looked at.
fn beside() -> Vec<(&'static str, Vec<u8>)> {
    let scalar = [global("numpy.dtype"), b"C\x08\0\0\0\0\0\0\0\0".to_vec()];
    let namespace = [
        call("argparse.Namespace", &[]),
        dict(&[("lr", b"G?\xf0\0\0\0\0\0\0".to_vec())]),
        b"b".to_vec(),
    ];
    let device = call("torch.device", &[text("cuda")]);
    let state = dict(&[("exp_avg", vector(2))]);
    let state = [b"}(".to_vec(), int(0), state, b"u".to_vec()].concat();
    vec![
        ("epoch", int(3)),
        ("best_acc", call("numpy.core.multiarray.scalar", &scalar)),
        ("args", namespace.concat()),
        ("device", device),
        ("optimizer", dict(&[("state", state), ("param_groups", b"]".to_vec())])),
        ("scheduler", [call("own.Scheduler", &[]), b"]b".to_vec()].concat()),
        ("history", b"](K\x01G?\xf0\0\0\0\0\0\0Ne".to_vec()),
        ("set", call("__builtin__.set", &[b"]".to_vec()])),
        ("frozen", b"(K\x01\x91".to_vec()),
        ("size", b"I1\nL2L\nF0.5\n\x86\x86".to_vec()),
    ]
}

#[test]
fn checkpoints() {
    let weights = || dict(&[("fc.weight", vector(2)), ("fc._extra_state", b"N".to_vec())]);
    let others = || dict(&[("fc.weight", view(3, &[2], &[1]))]);
    for key in ["state_dict", "model", "model_state_dict", "net", "anything"] {
        let entries = [beside(), vec![(key, weights())]].concat();
        for bytes in [file(&dict(&entries), &[1.0, 2.0]), old_file(&dict(&entries), &[1.0, 2.0])] {
            let found = read(&bytes, None).unwrap();
            assert_eq!(found.key(), Some(key));
            assert_eq!(found.arrays()["fc.weight"].as_slice(), Some(&[1.0, 2.0][..]));
        }
    }
    let six = |opcodes: Vec<u8>| file(&opcodes, &VALUES);
    let small = dict(&[("fc.weight", view(1, &[2], &[1]))]);
    let two = six(dict(&[("ema", others()), ("model", small.clone()), ("epoch", int(1))]));
    refused(
        &two,
        None,
        "several entries look like state dicts: ema, model; choose with --key NAME",
    );
    refused(&two, None, "ema (a dict), model (a dict), epoch (a number)");
    assert_eq!(
        read(&two, Some("ema")).unwrap().arrays()["fc.weight"].as_slice(),
        Some(&[3.0, 4.0][..])
    );
    refused(&two, Some("net"), "has no entry 'net'; --key NAME takes one of: ema (a dict)");
    refused(&two, Some("epoch"), "its entry 'epoch' is a number, not a state dict");
    // One inside another.
    let nested =
        six(dict(&[("ema", dict(&[("decay", int(1)), ("shadow", others())])), ("epoch", int(1))]));
    assert_eq!(read(&nested, None).unwrap().key(), Some("ema.shadow"));
    assert_eq!(read(&nested, Some("ema.shadow")).unwrap().arrays().len(), 1);
    refused(&nested, Some("ema.decay"), "its entry 'ema.decay' is a number");
    let dotted = six(dict(&[("a.b", dict(&[("c.d", others())]))]));
    assert_eq!(read(&dotted, Some("a.b.c.d")).unwrap().arrays().len(), 1);
    // The same object under two names is one.
    let same = [b"}(".to_vec(), text("a"), small, b"q\x07".to_vec(), text("b"), b"h\x07u".to_vec()]
        .concat();
    assert_eq!(read(&six(same), None).unwrap().key(), Some("a"));
    refused(&six(b"}".to_vec()), None, "nothing in it looks like a state dict");
    refused(
        &six(b"]".to_vec()),
        None,
        "nothing in it looks like a state dict (names and tensors); choose with --key NAME. It has: a list",
    );
}

#[test]
fn what_only_code_could_make() {
    let module = || [call("own.Net", &[]), dict(&[("w", vector(2))]), b"b".to_vec()].concat();
    let one = |opcodes: Vec<u8>| file(&opcodes, &[1.0, 2.0]);
    refused(&one(module()), None, "it is a whole module of the class `own.Net`");
    // As YOLOv5 and others save it.
    let checkpoint = one(dict(&[("epoch", int(1)), ("model", module())]));
    let line = "torch.save(torch.load(\"w.pth\", weights_only=False)[\"model\"].state_dict(), \"weights.pth\")";
    refused(&checkpoint, None, line);
    refused(&checkpoint, Some("model"), line);
    let mixed = dict(&[("a.weight", vector(2)), ("a.own", module())]);
    refused(&one(mixed.clone()), None, "'a.own' is an object of `own.Net`, not a tensor");
    refused(
        &one(mixed.clone()),
        None,
        "for k, v in torch.load(\"w.pth\", weights_only=False).items()",
    );
    refused(&one(dict(&[("net", mixed)])), Some("net"), "weights_only=False)[\"net\"].items()");
    let sparse = call("torch._utils._rebuild_sparse_tensor", &[int(0), b")".to_vec()]);
    refused(
        &one(dict(&[("a.w", sparse)])),
        None,
        "'a.w' is a sparse tensor, which is not read; save it dense",
    );
    let quantized = call("torch._utils._rebuild_qtensor", &[]);
    refused(&one(dict(&[("a.w", quantized)])), None, "'a.w' is a quantized tensor");
    // Nothing is called.
    let system = call("os.system", &[text("touch /tmp/cp-pytorch-was-here")]);
    refused(&one(system), None, "a whole module of the class `os.system`");
    assert!(!std::path::Path::new("/tmp/cp-pytorch-was-here").exists());
}

#[test]
fn other_files() {
    refused(b"", None, "is an empty file, not a checkpoint of PyTorch");
    refused(b"<html></html>", None, "is a web page (HTML)");
    refused(b"\x02\0\0\0\0\0\0\0{}", None, "is a safetensors file");
    let mut tar = vec![b'a'; 257];
    tar.extend(b"ustar\0");
    refused(&tar, None, "is a tar archive; if it is a checkpoint of PyTorch 0.1");
    refused(&zip(&[member("a/b.npy", *b"x")]), None, "is an archive of NumPy arrays");
    refused(
        &pickle(&dict(&[("a", int(1))])),
        None,
        "is a Python pickle that torch.save did not write",
    );
    let code = [member("m/data.pkl", *b"\x80\x02}."), member("m/code/m.py", *b"x")];
    refused(&zip(&code), None, "torch.save(torch.jit.load(\"w.pth\").state_dict()");
    let order = [member("m/data.pkl", *b"\x80\x02}."), member("m/byteorder", *b"big")];
    refused(&zip(&order), None, "was written on a big-endian machine");
    let old = old_file(&dict(&[("w", vector(1))]), &[1.0]);
    let at = old.windows(2).position(|pair| pair == b"\x88s").unwrap();
    let mut big = old.clone();
    big[at] = 0x89;
    refused(&big, None, "was written on a big-endian machine");
    let folder = tempfile::tempdir().unwrap();
    let error = state_dict(folder.path(), &StateDictOptions::default()).unwrap_err();
    assert!(error.to_string().contains("is a folder"), "{error}");
    let error =
        state_dict(folder.path().join("none.pth"), &StateDictOptions::default()).unwrap_err();
    assert!(error.to_string().contains("none.pth"), "{error}");
}

/// Cut off anywhere, a file is an error, and no other than one.
#[test]
fn truncated_files() {
    let opcodes = dict(&[("w", vector(2))]);
    let mut deflated =
        [member("w/data.pkl", pickle(&opcodes)), member("w/data/0", floats(&[1.0, 2.0]))];
    deflated[0].deflated = true;
    for bytes in [file(&opcodes, &[1.0, 2.0]), old_file(&opcodes, &[1.0, 2.0]), zip(&deflated)] {
        assert_eq!(read(&bytes, None).unwrap().arrays()["w"].as_slice(), Some(&[1.0, 2.0][..]));
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length], None).is_err(), "{length} of {}", bytes.len());
        }
    }
}

/// Any byte changed to any of a few others: an error or arrays, and no panic.
#[test]
fn damaged_files() {
    let net = dict(&[("a.w", view(0, &[2, 3], &[3, 1]))]);
    let opcodes = dict(&[("net", net), ("n", call("a.b", &[b"]".to_vec()]))]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    let (mut good, mut bad) = (0, 0);
    for bytes in [file(&opcodes, &VALUES), old_file(&opcodes, &VALUES)] {
        for at in 0..bytes.len() {
            for other in [0, 0x7f, 0xff, b'.', b't'] {
                let mut changed = bytes.clone();
                changed[at] = other;
                std::fs::write(&path, changed).unwrap();
                match state_dict(&path, &StateDictOptions::default()) {
                    Ok(_) => good += 1,
                    Err(_) => bad += 1,
                }
            }
        }
    }
    assert!(good > 0 && bad > 1000, "{good} {bad}");
}

#[test]
fn hostile_pickles() {
    let check = |opcodes: &[u8], expected: &str| {
        refused(&file(opcodes, &[]), None, expected);
        refused(&old_file(opcodes, &[]), None, expected);
    };
    let end = "it ends here: the file is cut off";
    // Sizes that are not there.
    check(&[&[0x8b][..], &u32::MAX.to_le_bytes()].concat(), end);
    check(&[&[0x8e][..], &u64::MAX.to_le_bytes()].concat(), end);
    check(&[&[0x8d][..], &(1_u64 << 40).to_le_bytes()].concat(), end);
    check(&[&b"X"[..], &u32::MAX.to_le_bytes()].concat(), end);
    // A memo with one entry, far out; one that there is not.
    check(&[b"]r".to_vec(), u32::MAX.to_le_bytes().to_vec()].concat(), "It has: a list");
    check(b"h\x05", "refers to object 5, which there is not");
    check(b"g99999999999999999999\n", "no valid number");
    // Lists in lists: a million deep, the machine has no stack to overflow.
    check(&[vec![b']'; 1_000_000], vec![b'a'; 999_999]].concat(), "It has: a list");
    check(&[vec![b'('; 5000], vec![b't'; 5000]].concat(), "more than 4096 nested collections");
    // Each ten times the one before: as many objects as opcodes.
    let bomb: Vec<u8> = (0..200_u8)
        .flat_map(|level| [&b"]q"[..], &[level], b"0](", &[b'h', level].repeat(10), b"e"].concat())
        .collect();
    check(&bomb, "It has: a list");
    let circle = [b"}q\0(".to_vec(), text("a"), b"h\0u".to_vec()].concat();
    check(&circle, "It has: a (a dict)");
    refused(&file(&circle, &[]), Some(&["a"; 99].join(".")), "'a' is a dict, not a tensor");
    // Nothing to take, nothing to call, no code.
    for opcodes in
        [&b"R"[..], b"a", b"u", b"0", b"t", b"\x85", b"b", b"Q", b"s", b"o", b"(o", b"2", b"q\0"]
    {
        check(opcodes, "nothing left to take from the stack");
    }
    check(b"K\x01)R", "a call: expected a class or function");
    check(b"K\x01K\x01a", "items: expected a list");
    check(b"](K\x01u", "nothing left to take");
    check(b"\x82\x01", "opcode 0x82, which no file of PyTorch has");
    check(b"cnothing", "it ends here");
    check(b"X\x01\0\0\0\xff", "no valid UTF-8");
    check(&vec![b'N'; 1 << 24], "more than 16777216 opcodes");
}

#[test]
fn hostile_tensors() {
    let check = |opcodes: Vec<u8>, expected: &str| {
        refused(&file(&dict(&[("w", opcodes.clone())]), &VALUES), None, expected);
        refused(&old_file(&dict(&[("w", opcodes)]), &VALUES), None, expected);
    };
    check(view(5, &[2], &[1]), "'w' reaches out of its storage of 6 elements");
    check(view(0, &[2, 2], &[i64::MAX, 1]), "'w' reaches out of its storage");
    check(view(0, &[i64::MAX, i64::MAX], &[0, 0]), "'w' reaches out of its storage");
    check(view(0, &[1 << 40], &[0]), "take more than");
    check(view(0, &[-1], &[1]), "none of them negative");
    check(view(0, &[1], &[1, 1]), "as many sizes as strides");
    check(
        call("torch._utils._rebuild_tensor_v2", &[]),
        "storage, first element, sizes and strides",
    );
    check(call("torch._utils._rebuild_parameter", &[]), "a parameter: expected its tensor");
    check([text("x"), b"Q".to_vec()].concat(), "a persistent id: expected a tuple");
    check(tensor(storage("torch.FloatStorage", "0", -6), 0, &[1], &[1]), "a storage: expected");
    refused(
        &file(
            &dict(&[("w", tensor(storage("torch.FloatStorage", "0", 1 << 60), 0, &[1], &[1]))]),
            &VALUES,
        ),
        None,
        "'w' has a storage of 24 bytes instead of 4611686018427387904",
    );
    let missing = tensor(storage("torch.FloatStorage", "7", 6), 0, &[1], &[1]);
    refused(&file(&dict(&[("w", missing.clone())]), &VALUES), None, "no member 'w/data/7'");
    refused(
        &old_file(&dict(&[("w", missing)]), &VALUES),
        None,
        "different things about the storage '0'",
    );
    // Many views, each of which would do.
    let mut many = b"}(".to_vec();
    for index in 0..4000 {
        many.extend([text(&format!("w.{index}")), view(0, &[1 << 16], &[0])].concat());
    }
    many.push(b'u');
    refused(&file(&many, &VALUES), None, "made to do harm");
}

#[test]
fn hostile_archives() {
    let good = || {
        vec![
            member("w/data.pkl", pickle(&dict(&[("w", vector(2))]))),
            member("w/data/0", floats(&[1.0, 2.0])),
        ]
    };
    read(&zip(&good()), None).unwrap();
    let twice: Vec<Member> = [good(), good()].into_iter().flatten().collect();
    refused(&zip(&twice), None, "members 'w/data.pkl' and 'w/data.pkl' have the same name");
    // 256 MB of zeros in 260 kB.
    let mut bomb = good();
    bomb[1] = Member { name: "w/data/0".into(), data: vec![0; 1 << 28], deflated: true };
    refused(&zip(&bomb), None, "take more than");
    let check = |change: &dyn Fn(&mut Vec<u8>, usize), expected: &str| {
        let mut bytes = zip(&good());
        // The entry of the second member in the directory.
        let starts: Vec<usize> =
            (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02")).collect();
        change(&mut bytes, starts[1]);
        refused(&bytes, None, expected);
    };
    let set = |offset: usize, value: &'static [u8]| {
        move |bytes: &mut Vec<u8>, at: usize| {
            bytes[at + offset..][..value.len()].copy_from_slice(value)
        }
    };
    check(&set(8, &[1]), "'w/data/0' is encrypted");
    check(&set(10, &[12]), "'w/data/0' is compressed by method 12");
    check(&set(10, &[8]), "'w/data/0' does not inflate");
    check(&set(16, &[1, 2, 3, 4]), "has another CRC-32");
    check(&set(20, &[255, 255, 255, 127]), "a stored member has two sizes");
    check(&set(20, &[0, 0, 1, 0, 0, 0, 1, 0]), "a member reaches beyond the directory");
    check(&set(42, &[0, 0, 0, 0]), "a member and the directory disagree on its name");
    check(&set(42, &[255, 255, 255, 0]), "a field is cut off");
    check(&set(42, &[255, 255, 255, 255]), "a 64-bit size is missing");
    check(
        &|bytes, _| {
            let at = bytes.len() - 6;
            bytes[at] = 1;
        },
        "no entry of the directory",
    );
    check(
        &|bytes, _| {
            let at = bytes.len() - 12;
            bytes[at] = 9;
        },
        "no entry of the directory",
    );
    check(&|bytes, at| bytes[at + 46] = 0xff, "a name is not UTF-8");
    // A member in another: the first one's bytes are a whole member of their own.
    let inner = zip(&[member("b", *b"inside")]);
    let mut nested = zip(&[member("a", &inner[..]), member("b", *b"inside")]);
    let last = (0..nested.len() - 4).rfind(|at| nested[*at..].starts_with(b"PK\x01\x02")).unwrap();
    nested[last + 42..last + 46].copy_from_slice(&31_u32.to_le_bytes());
    refused(&nested, None, "members 'a' and 'b' overlap");
}

#[test]
fn into_an_architecture() {
    let small = arch::by_name("small-cnn").unwrap();
    let net = small.clone().initialize(1).unwrap();
    let mut entries = Vec::new();
    let mut values = Vec::new();
    let names: Vec<String> = net.params().keys().map(|name| format!("module.{name}")).collect();
    let total: usize = net.params().values().map(|array| array.len()).sum();
    for (name, array) in names.iter().zip(net.params().values()) {
        let sizes: Vec<i64> = array.shape().iter().map(|size| *size as i64).collect();
        let strides: Vec<i64> = array.strides().iter().map(|step| *step as i64).collect();
        let all = storage("torch.FloatStorage", "0", total as i64);
        entries.push((name.as_str(), tensor(all, values.len() as i64, &sizes, &strides)));
        values.extend(array.iter().copied());
    }
    let counter = tensor(storage("torch.LongStorage", "1", 1), 0, &[], &[]);
    entries.push(("module.bn.num_batches_tracked", counter.clone()));
    entries.push(("module.index", counter));
    let opcodes = dict(&[("state_dict", dict(&entries)), ("epoch", int(1))]);
    let bytes = saved(&pickle(&opcodes), &[&floats(&values), &5_i64.to_le_bytes()]);
    let loaded = read(&bytes, None).unwrap().into_network(small).unwrap();
    assert_eq!(loaded.network.params(), net.params());
    let expected = [
        "the checkpoint's entry 'state_dict' was taken",
        "'module.' was dropped from 8 names of arrays",
        "1 arrays of whole numbers were left out ('module.index')",
    ];
    assert_eq!(loaded.notes, expected);
    let other = read(&bytes, None).unwrap().into_network(arch::by_name("resnet20").unwrap());
    assert!(
        other.unwrap_err().to_string().contains("the weights do not fit architecture 'resnet20'")
    );
}

#[test]
fn errors_hold_data() {
    let error = read(&file(&dict(&[("a.b", vector(3))]), &[1.0]), None).unwrap_err();
    let PyTorchError::Checkpoint { path, source } = error else { panic!("{error}") };
    assert!(path.ends_with("w.pth"));
    assert!(matches!(*source, CheckpointError::Tensor { name, .. } if name == "a.b"));
}
