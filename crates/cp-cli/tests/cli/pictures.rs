//! Pictures as people have them: of several colour types and sizes, behind links, under odd names, and in splits that overlap.

use std::fs;
use std::path::{Path, PathBuf};

use cp_net::Network;
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use ndarray::{ArrayD, IxDyn};
use serde_json::Value;

use crate::support::{HEAD, RGB, fails, json, number, pictures, polyad, refused, text, written};

/// A network that says which channel is the brightest; the pictures of `pictures` are classified right. Classes are blue, green, red.
fn brightest(folder: &Path) -> PathBuf {
    let path = written(folder, "net", RGB, HEAD);
    let mut net = Network::load(&path).unwrap();
    let weight = |i: IxDyn| if i[0] + i[1] == 2 { 9.0 } else { 0.0 };
    net.set_param("fc.weight", ArrayD::from_shape_fn(IxDyn(&[3, 3]), weight)).unwrap();
    net.set_param("fc.bias", ArrayD::zeros(IxDyn(&[3]))).unwrap();
    net.save(&path).unwrap();
    path
}

/// A red picture, or a white one, in a colour type of its own.
fn kinds() -> Vec<(&'static str, DynamicImage, ImageFormat)> {
    let red = DynamicImage::ImageRgb8(RgbImage::from_pixel(8, 8, Rgb([220, 20, 20])));
    let white = DynamicImage::ImageLuma8(GrayImage::from_pixel(8, 8, Luma([200])));
    vec![
        ("rgba.png", red.to_rgba8().into(), ImageFormat::Png),
        ("rgb16.png", red.to_rgb16().into(), ImageFormat::Png),
        ("rgba16.png", red.to_rgba16().into(), ImageFormat::Png),
        ("called.png", red.clone(), ImageFormat::Jpeg),
        ("called.JPG", red, ImageFormat::Png),
        ("grey.jpg", white.clone(), ImageFormat::Jpeg),
        ("grey16.png", white.to_luma16().into(), ImageFormat::Png),
        ("grey-alpha.png", white.to_luma_alpha8().into(), ImageFormat::Png),
    ]
}

#[test]
fn every_colour_type_stands_beside_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (net, dataset) = (brightest(folder.path()), pictures(folder.path()));
    let red = folder.path().join("pictures/test/red");
    let eval = ["eval", text(&net), "--dataset", &dataset, "--engine", "infer"];
    let mut count = 24;
    assert!((number(&json(&eval), "top1") - 1.0).abs() < 1e-9);
    // First in their folder, then last.
    for place in ["0-", "z-"] {
        let path = |name: &str| red.join(format!("{place}{name}"));
        for (name, picture, format) in kinds() {
            picture.save_with_format(path(name), format).unwrap();
            count += 1;
        }
        assert_eq!(json(&eval)["examples"], count, "{place}");
        let mut run = polyad(&["run", text(&net), "--top", "1", "--engine", "infer", "--json"]);
        run.args(kinds().iter().map(|(name, ..)| path(name)));
        let shown = run.assert().success().get_output().stdout.clone();
        let shown: Value = serde_json::from_slice(&shown).unwrap();
        for (index, (name, ..)) in kinds().iter().enumerate() {
            // White is as bright in all channels: the first class, which is not red's.
            let class = &shown["pictures"][index]["classes"][0]["class"];
            assert_eq!(class == 2, !name.starts_with("grey"), "{name}: {shown}");
        }
    }
}

/// The loss of a folder is the mean of the losses of its pictures, each by itself, whichever comes first; `run` gives the same.
#[test]
fn every_size_is_brought_to_that_of_the_network_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let net = brightest(folder.path());
    let sizes = [(5, 40), (8, 7), (1, 1), (200, 33), (16, 16)];
    pictures(folder.path());
    let picture = |set: &str, index: usize| {
        let (width, height) = sizes[index];
        let place = folder.path().join(set).join("test/blue");
        fs::create_dir_all(&place).unwrap();
        let path = place.join(format!("{index}.png"));
        // Red in the middle, blue around: a cut and a shrunk one differ.
        let paint = |x: u32, y: u32| {
            let inside = (width / 3..2 * width / 3).contains(&x)
                && (height / 3..2 * height / 3).contains(&y);
            Rgb(if inside { [250, 20, 10] } else { [10, 20, 200] })
        };
        RgbImage::from_fn(width, height, paint).save(&path).unwrap();
        path
    };
    let loss = |set: &str| {
        // All classes are known from training.
        for class in ["blue", "green", "red"] {
            let from = folder.path().join("pictures/train").join(class).join("0.png");
            let to = folder.path().join(set).join("train").join(class);
            fs::create_dir_all(&to).unwrap();
            fs::copy(from, to.join("0.png")).unwrap();
        }
        let dataset = format!("folder:{}", text(&folder.path().join(set)));
        let args = ["eval", text(&net), "--dataset", &dataset, "--engine", "infer"];
        number(&json(&args), "loss")
    };
    let alone: Vec<f64> = (0..sizes.len())
        .map(|index| {
            let set = format!("alone{index}");
            let path = picture(&set, index);
            let found = loss(&set);
            let shown = json(&["run", text(&net), text(&path), "--engine", "infer"]);
            let classes = shown["pictures"][0]["classes"].as_array().unwrap();
            let blue = classes.iter().find(|class| class["class"] == 0).unwrap();
            assert!((-number(blue, "probability").ln() - found).abs() < 1e-5, "{shown} {found}");
            found
        })
        .collect();
    assert!(alone.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 1e-3), "{alone:?}");
    for (set, chosen) in [("two", &[0, 3][..]), ("three", &[2, 1, 4]), ("all", &[0, 1, 2, 3, 4])] {
        chosen.iter().for_each(|index| drop(picture(set, *index)));
        let mean = chosen.iter().map(|index| alone[*index]).sum::<f64>() / chosen.len() as f64;
        assert!((loss(set) - mean).abs() < 1e-5, "{set}: {mean}");
    }
}

#[cfg(unix)]
#[test]
fn links_and_names_of_any_kind() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let (net, dataset) = (brightest(folder.path()), pictures(folder.path()));
    let test = folder.path().join("pictures/test");
    let eval = ["eval", text(&net), "--dataset", &dataset, "--engine", "infer"];
    let red = |name: &[u8]| test.join("red").join(OsStr::from_bytes(name));
    let names: [&[u8]; 7] = [
        b"a b.png",
        b"n\nl.png",
        b"\xff\xfe.png",
        b"-rf.png",
        b"%s%n.png",
        b"x.PNG",
        "ü.png".as_bytes(),
    ];
    for name in names {
        fs::copy(red(b"0.png"), red(name)).unwrap();
    }
    let run = ["run", text(&net), "--engine", "infer", "--"];
    polyad(&run).args(names.map(&red)).assert().success();
    let found = json(&eval);
    assert_eq!((&found["examples"], number(&found, "top1") > 0.999), (&31.into(), true));
    // Of links: to a picture, to the folder above, to themselves, and to nothing.
    symlink("0.png", red(b"link.png")).unwrap();
    symlink("..", red(b"up")).unwrap();
    symlink("round", red(b"round")).unwrap();
    symlink("/nowhere", red(b"Thumbs.db")).unwrap();
    assert_eq!(json(&eval)["examples"], 32);
    for (name, words) in [
        (&b"z.png"[..], "z.png"),
        (b"z\x1b[2J.jpeg", "z\\u{1b}[2J.jpeg"),
        (b"../../classes.txt", "classes.txt"),
        (b"../purple", "purple"),
    ] {
        let link = red(name);
        symlink("nowhere-either", &link).unwrap();
        refused(&eval, 1, &["pictures", words]);
        fs::remove_file(link).unwrap();
    }
    for (dataset, words) in [
        ("folder:", "unknown data set"),
        ("tar:", "unknown data set"),
        ("folder:/nowhere/at all", "/nowhere/at all"),
        ("tar:/dev/null", "/dev/null"),
    ] {
        refused(&["eval", text(&net), "--dataset", dataset], 1, &[words]);
    }
}

#[test]
fn what_chooses_and_what_trains_are_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (net, dataset) = (brightest(folder.path()), pictures(folder.path()));
    let out = folder.path().join("out.safetensors");
    let compress = ["compress", text(&net), "--params-ratio", "0.9", "--dataset", &dataset];
    let compress = [&compress[..], &["--epochs", "1", "--out", text(&out)]].concat();
    for (splits, words) in [
        (&["--train-split", "all"][..], &["--train-split", "--validation-split", "share "][..]),
        (&["--train-split", "train+validation"], &["--validation-split", "share "]),
        (&["--train-split", "test", "--validation-split", "Test"], &["are both"]),
        (&["--train-split", "all", "--validation-split", "test"], &["share 24"]),
        (&["--validation-split", "test", "--test-split", "TEST"], &["--test-split", "are both"]),
        (
            &["--validation-split", "test", "--test-split", "all"],
            &["--train-split", "--test-split"],
        ),
    ] {
        fails(&[&compress[..], splits].concat(), 2, words);
    }
    assert!(!folder.path().join("out.work").exists());
}
