//! `polyad decompose` on small arrays: results, files, bad input.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{assert_keys, fails, files, json, number, polyad, read_only, text};
use ndarray::{Array1, Array2, ArrayD, Dimension as _, IxDyn, ShapeBuilder as _};
use ndarray_npy::{NpzReader, NpzWriter, WritableElement, write_npy};

/// An array of exact rank 2, with entries that no solver's random start knows of.
fn planted(shape: &[usize], fortran: bool) -> ArrayD<f64> {
    let term = |index: &IxDyn, speed: f64| -> f64 {
        (0..index.slice().len())
            .map(|n| (1.3 + speed * index[n] as f64 + n as f64).sin() + 1.5)
            .product()
    };
    let dims = IxDyn(shape);
    let value = |index: &IxDyn| term(index, 0.7) - 2.0 * term(index, 1.9);
    if fortran {
        ArrayD::from_shape_fn(dims.f(), |index| value(&index))
    } else {
        ArrayD::from_shape_fn(dims, |index| value(&index))
    }
}

fn save<T: WritableElement>(folder: &Path, name: &str, array: &ArrayD<T>) -> PathBuf {
    let path = folder.join(name);
    write_npy(&path, array).unwrap();
    path
}

/// Σᵣ λᵣ ∘ₙ a⁽ⁿ⁾ᵣ from an archive, entry by entry.
fn reconstruct(archive: &Path, shape: &[usize]) -> ArrayD<f64> {
    let mut archive = NpzReader::new(fs::File::open(archive).unwrap()).unwrap();
    let mut names = archive.names().unwrap();
    names.sort();
    let expected: Vec<String> =
        (0..shape.len()).map(|n| format!("factor_{n}")).chain(["weights".to_string()]).collect();
    assert_eq!(names, expected);
    let weights: Array1<f64> = archive.by_name("weights").unwrap();
    let factors: Vec<Array2<f64>> =
        (0..shape.len()).map(|n| archive.by_name(&format!("factor_{n}")).unwrap()).collect();
    ArrayD::from_shape_fn(IxDyn(shape), |index| {
        (0..weights.len())
            .map(|r| {
                weights[r]
                    * factors
                        .iter()
                        .enumerate()
                        .map(|(n, factor)| factor[[index[n], r]])
                        .product::<f64>()
            })
            .sum()
    })
}

fn relative_error(x: &ArrayD<f64>, y: &ArrayD<f64>) -> f64 {
    let norm = |a: ArrayD<f64>| a.mapv(|v| v * v).sum().sqrt();
    norm(x - y) / norm(x.clone())
}

#[test]
fn recovers_an_array_of_low_rank() {
    let check = |shape: &[usize], fortran: bool| {
        let folder = tempfile::tempdir().unwrap();
        let array = planted(shape, fortran);
        let input = save(folder.path(), "x.npy", &array);
        let out = folder.path().join("factors.npz");
        let args = [
            "decompose",
            text(&input),
            "--rank",
            "2",
            "--init",
            "hosvd",
            "--tol",
            "1e-12",
            "--max-iters",
            "2000",
        ];
        let report = json(&[&args[..], &["--out", text(&out)]].concat());
        assert_keys(
            &report,
            &[
                "method",
                "shape",
                "rank",
                "iterations",
                "relative_error",
                "fit",
                "stop",
                "seconds",
                "seconds_per_iteration",
                "degeneracy",
                "component_energy",
                "sensitivity",
            ],
        );
        assert_eq!(report["method"], "als");
        assert_eq!(report["rank"], 2);
        assert_eq!(report["shape"], serde_json::json!(shape));
        let error = relative_error(&array, &reconstruct(&out, shape));
        assert!(error < 1e-4, "{shape:?}: {error}");
        assert!((number(&report, "relative_error") - error).abs() < 1e-6, "{report}, {error}");
        assert!((number(&report, "fit") + number(&report, "relative_error") - 1.0).abs() < 1e-12);
        assert!(number(&report, "seconds") > 0.0 && number(&report, "seconds_per_iteration") > 0.0);
        assert_eq!(files(folder.path()), ["factors.npz", "x.npy"]);
    };
    check(&[7, 5], false);
    check(&[6, 5, 4], false);
    check(&[6, 5, 4], true);
    check(&[4, 5, 3, 3], true);
    check(&[3, 2, 4, 2, 3], false);
}

#[test]
fn both_float_types_in_and_out() {
    let folder = tempfile::tempdir().unwrap();
    let array = planted(&[6, 5, 4], false);
    let single = save(folder.path(), "f32.npy", &array.mapv(|x| x as f32));
    let double = save(folder.path(), "f64.npy", &array);
    let out = folder.path().join("factors.npz");
    let check = |input: &Path, dtype: &[&str], expect_single: bool| {
        let args = ["decompose", text(input), "--rank", "2", "--out", text(&out)];
        json(&[&args[..], dtype].concat());
        let mut archive = NpzReader::new(fs::File::open(&out).unwrap()).unwrap();
        let is_single =
            archive.by_name::<ndarray::OwnedRepr<f32>, ndarray::Ix2>("factor_0").is_ok();
        assert_eq!(is_single, expect_single, "{input:?} {dtype:?}");
    };
    check(&single, &[], true);
    check(&double, &[], false);
    check(&single, &["--dtype", "f64"], false);
    check(&double, &["--dtype", "f32"], true);
}

#[test]
fn the_other_byte_order_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let little = save(folder.path(), "little.npy", &planted(&[4, 3, 2], false));
    let bytes = fs::read(&little).unwrap();
    let (header, data) = bytes.split_at(bytes.len() - 4 * 3 * 2 * 8);
    let at = header.windows(3).position(|kind| kind == b"<f8").unwrap();
    let mut big = header.to_vec();
    big[at] = b'>';
    big.extend(data.chunks_exact(8).flat_map(|number| number.iter().rev()));
    let path = folder.path().join("big.npy");
    fs::write(&path, big).unwrap();
    let error = |path: &Path| {
        number(&json(&["decompose", text(path), "--rank", "1"]), "relative_error").to_bits()
    };
    assert_eq!(error(&little), error(&path));
}

#[test]
fn tol_0_runs_exactly_that_many_iterations_and_seeds_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let input = save(folder.path(), "x.npy", &planted(&[6, 5, 4], false));
    let run = |seed: &str| {
        json(&[
            "decompose",
            text(&input),
            "--rank",
            "3",
            "--max-iters",
            "7",
            "--tol",
            "0",
            "--seed",
            seed,
        ])
    };
    let (one, again, other) = (run("1"), run("1"), run("2"));
    assert_eq!(one["iterations"], 7);
    assert_eq!(one["relative_error"], again["relative_error"]);
    assert_ne!(one["relative_error"], other["relative_error"]);
}

#[test]
fn more_starts_are_never_worse_and_factors_can_be_given() {
    let folder = tempfile::tempdir().unwrap();
    let array = ArrayD::from_shape_fn(IxDyn(&[6, 5, 4]), |i| {
        ((i[0] * 7 + i[1] * 13 + i[2] * 29) % 11) as f64 - 5.0
    });
    let input = save(folder.path(), "x.npy", &array);
    let out = folder.path().join("factors.npz");
    let args = ["decompose", text(&input), "--rank", "3", "--max-iters", "20", "--tol", "0"];
    let one = json(&args);
    let five = json(&[&args[..], &["--restarts", "5", "--out", text(&out)]].concat());
    assert!(number(&five, "relative_error") <= number(&one, "relative_error"));
    let further = json(&[&args[..], &["--init-factors", text(&out)]].concat());
    assert!(
        number(&further, "relative_error") <= number(&five, "relative_error") + 1e-9,
        "{further} {five}"
    );
}

#[test]
fn text_for_people() {
    let folder = tempfile::tempdir().unwrap();
    let input = save(folder.path(), "x.npy", &planted(&[6, 5, 4], false));
    let output =
        polyad(&["decompose", text(&input), "--rank", "2"]).assert().success().get_output().clone();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("6×5×4") && stdout.contains("relative error"), "{stdout}");
    assert!(output.stderr.is_empty(), "no progress bar without a terminal");
}

#[test]
fn damaged_and_foreign_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = save(folder.path(), "good.npy", &planted(&[6, 5, 4], false));
    let bytes = fs::read(&good).unwrap();
    let check = |name: &str, content: &[u8], words: &[&str]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let error = fails(&["decompose", text(&path), "--rank", "2"], 1, words);
        assert!(error.contains(name), "{error}");
    };
    check("truncated.npy", &bytes[..bytes.len() - 9], &["truncated"]);
    check("longer.npy", &[&bytes[..], &[0; 8]].concat(), &["damaged"]);
    check("header.npy", &bytes[..20], &["truncated"]);
    check("empty.npy", b"", &["an empty file"]);
    check("text.npy", b"not an array at all, but long enough to be one", &[".npy"]);
    // A header that claims more than any machine has must not be believed.
    let header: String =
        bytes[..bytes.len() - 6 * 5 * 4 * 8].iter().map(|&byte| byte as char).collect();
    let claim = header.replacen("(6, 5, 4)}             ", "(600000, 50000, 40000)}", 1);
    assert_ne!(claim, header);
    let claim: Vec<u8> = claim
        .chars()
        .map(|letter| letter as u8)
        .chain(bytes[header.chars().count()..].to_vec())
        .collect();
    check("claim.npy", &claim, &["truncated"]);
    fails(&["decompose", "missing.npy", "--rank", "2"], 1, &["missing.npy"]);
    fails(&["decompose", text(folder.path()), "--rank", "2"], 1, &[text(folder.path())]);
}

#[test]
fn arrays_that_have_no_decomposition_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = |path: PathBuf, words: &[&str]| {
        let out = folder.path().join("out.npz");
        fails(&["decompose", text(&path), "--rank", "2", "--out", text(&out)], 1, words);
        assert!(!out.exists());
    };
    let mut array = planted(&[6, 5, 4], false);
    check(save(folder.path(), "vector.npy", &planted(&[6], false)), &["vector.npy", "order"]);
    array[[1, 2, 3]] = f64::NAN;
    check(save(folder.path(), "nan.npy", &array), &["nan.npy"]);
    array[[1, 2, 3]] = f64::INFINITY;
    check(save(folder.path(), "inf.npy", &array), &["inf.npy"]);
    check(save(folder.path(), "none.npy", &ArrayD::<f64>::zeros(IxDyn(&[3, 0, 2]))), &["none.npy"]);
    let integers = ArrayD::<i64>::zeros(IxDyn(&[3, 4, 2]));
    check(save(folder.path(), "int.npy", &integers), &["int.npy", "<i8", "astype"]);
}

#[test]
fn nothing_is_left_where_the_output_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let input = save(folder.path(), "x.npy", &planted(&[6, 5, 4], false));
    let args = |out: &Path| {
        ["decompose", text(&input), "--rank", "2", "--out", text(out)].map(str::to_owned)
    };
    let check = |out: &Path, words: &[&str]| {
        let args = args(out);
        fails(&args.each_ref().map(String::as_str), 1, words);
    };
    check(folder.path(), &["folder"]);
    check(&folder.path().join("no/such/folder/f.npz"), &["does not exist"]);
    check(&input, &["overwrite"]);
    assert_eq!(files(folder.path()), ["x.npy"]);
    if let Some(sealed) = read_only(folder.path()) {
        check(&sealed.join("f.npz"), &["f.npz", "cannot write"]);
    }
    // An existing result survives a run that fails.
    let out = folder.path().join("old.npz");
    fs::write(&out, "precious").unwrap();
    let mut array = planted(&[6, 5, 4], false);
    array[[0, 0, 0]] = f64::NAN;
    let bad = save(folder.path(), "nan.npy", &array);
    fails(&["decompose", text(&bad), "--rank", "2", "--out", text(&out)], 1, &["nan.npy"]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "precious");
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let input = save(folder.path(), "x.npy", &planted(&[6, 5, 4], false));
    let archive = folder.path().join("f.npz");
    let check = |shapes: &[(&str, [usize; 2])], words: &[&str]| {
        let mut writer = NpzWriter::new(fs::File::create(&archive).unwrap());
        for (name, shape) in shapes {
            writer.add_array(*name, &Array2::<f64>::ones(*shape)).unwrap();
        }
        writer.finish().unwrap();
        fails(
            &["decompose", text(&input), "--rank", "2", "--init-factors", text(&archive)],
            1,
            words,
        );
    };
    check(&[("a", [6, 2])], &["f.npz", "factor_0"]);
    check(&[("factor_0", [6, 2]), ("factor_1", [5, 2])], &["3"]);
    check(&[("factor_0", [6, 2]), ("factor_1", [5, 2]), ("factor_2", [7, 2])], &["7"]);
    check(&[("factor_0", [6, 3]), ("factor_1", [5, 3]), ("factor_2", [4, 2])], &["3", "2"]);
    fs::write(&archive, "no archive").unwrap();
    fails(
        &["decompose", text(&input), "--rank", "2", "--init-factors", text(&archive)],
        1,
        &["f.npz"],
    );
}

#[test]
fn every_cp_method_finds_a_positive_rank_one_array() {
    let folder = tempfile::tempdir().unwrap();
    let array = ArrayD::from_shape_fn(IxDyn(&[6, 5, 4]), |i| {
        ((1 + i[0]) * (2 + i[1]) * (1 + i[2] * i[2])) as f64
    });
    let input = save(folder.path(), "x.npy", &array);
    // Inputs that are independent and of one size: the plain problem.
    let statistics = save(folder.path(), "s.npy", &Array2::<f64>::eye(20).into_dyn());
    let methods =
        ["als", "als-qr", "als-qr-svd", "nls", "auto", "power", "epc", "nonneg", "sampled-als"];
    let check = |method: &str, more: &[&str]| {
        let args = ["decompose", text(&input), "--rank", "1", "--method", method];
        let report = json(&[&args[..], more].concat());
        assert_eq!(report["method"], method);
        assert!(number(&report, "relative_error") < 2e-3, "{report}");
        let energy = number(&report, "component_energy");
        assert!((energy - 1.0).abs() < 1e-2, "{report}");
    };
    for method in methods {
        check(method, &[]);
    }
    check("als-sigma", &["--statistics", text(&statistics)]);
    check("als", &["--precompress", "--extrapolate"]);
}

#[test]
fn ranks_by_rule_and_factors_of_another_rank() {
    let folder = tempfile::tempdir().unwrap();
    let input = save(folder.path(), "x.npy", &planted(&[8, 7, 6], false));
    let rule = ["decompose", text(&input), "--max-iters", "500", "--rank"];
    let exact = json(&[&rule[..], &["error=0.001", "--method", "auto"]].concat());
    assert_eq!(exact["rank"], 2, "{exact}");
    let coarse = json(&[&rule[..], &["error=0.9"]].concat());
    assert_eq!(coarse["rank"], 1, "{coarse}");
    assert!(json(&[&rule[..], &["evbmf"]].concat())["rank"].as_u64().unwrap() >= 1);

    let archive = folder.path().join("two.npz");
    json(&[&rule[..], &["2", "--out", text(&archive)]].concat());
    for rank in ["1", "3"] {
        let more = json(&[&rule[..], &[rank, "--init-factors", text(&archive)]].concat());
        assert_eq!(more["rank"].to_string(), rank, "{more}");
    }
    let unmet = ["1e-30", "--max-iters", "1"];
    let rank = format!("error={}", unmet[0]);
    let args = ["decompose", text(&input), "--rank", &rank, unmet[1], unmet[2]];
    fails(&args, 1, &["x.npy", "relative error", "nearest", "--max-iters"]);
}

#[test]
fn tucker_methods_write_a_core() {
    let folder = tempfile::tempdir().unwrap();
    let input = save(folder.path(), "x.npy", &planted(&[8, 7, 3], false));
    let out = folder.path().join("tucker.npz");
    let check = |method: &str, ranks: &str, names: &[&str], core: &[usize]| {
        let args = ["decompose", text(&input), "--method", method, "--ranks", ranks];
        let report = json(&[&args[..], &["--out", text(&out)]].concat());
        assert!(number(&report, "relative_error") < 1e-6, "{report}");
        assert_eq!(report["ranks"], serde_json::json!(core));
        let mut archive = NpzReader::new(fs::File::open(&out).unwrap()).unwrap();
        let mut found = archive.names().unwrap();
        found.sort();
        assert_eq!(found, names);
        let written: ArrayD<f64> = archive.by_name("core").unwrap();
        assert_eq!(written.shape(), core);
    };
    let all = ["core", "factor_0", "factor_1", "factor_2"];
    check("hosvd", "2,2,2", &all, &[2, 2, 2]);
    check("hooi", "2,2,2", &all, &[2, 2, 2]);
    check("tucker2", "2,2", &all[..3], &[2, 2, 3]);
}

#[test]
fn options_of_other_methods_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let input = save(folder.path(), "x.npy", &planted(&[6, 5, 4], false));
    let check = |more: &[&str], words: &[&str]| {
        fails(&[&["decompose", text(&input)], more].concat(), 2, words);
    };
    check(&["--rank", "2", "--delta", "0.1"], &["--delta", "epc", "als"]);
    check(&["--rank", "2", "--method", "nls", "--ridge", "0"], &["--ridge", "nls"]);
    check(&["--method", "hooi", "--rank", "2"], &["--rank", "hooi"]);
    check(&["--method", "hooi"], &["--ranks"]);
    check(&["--method", "tucker2", "--ranks", "2,2,2"], &["tucker2", "two"]);
    check(&["--rank", "2", "--method", "als-sigma"], &["--statistics"]);
    check(&[], &["--rank"]);
    check(&["--rank", "error=2"], &["error"]);
}
