//! Damaged, missing and misplaced files, through the front door: every one is an error that names the file.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is a failure")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cp_data::{DATA_VARIABLE, DataDir, DataError, Dataset, class_counts, open, pretrained};

/// The error's message, which has to name `needle`.
#[track_caller]
fn message(result: Result<Arc<dyn Dataset>, DataError>, needle: &str) -> String {
    let text = result.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains(needle), "{text:?} does not name {needle:?}");
    text
}

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A PNG of 8×8 pixels of one shade.
fn png(shade: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(8, 8, image::Rgb([shade; 3]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn unknown_names_and_splits_list_the_known_ones() {
    let data = DataDir::at(std::env::temp_dir());
    assert!(
        message(open("emnist", "test", &data), "\"emnist\"").contains("fashion-mnist, cifar10")
    );
    assert!(message(open("cifar10", "tset", &data), "\"tset\"").contains("test-1000"));
    assert!(message(open("imagenet-sample", "train", &data), "\"train\"").contains("it has all"));
}

#[test]
fn a_missing_file_says_what_was_searched_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::at(dir.path());
    let text = message(open("fashion-mnist", "test", &data), "t10k-images-idx3-ubyte.gz");
    assert!(
        text.contains(&format!("{} (--data)", dir.path().join("fashion-mnist").display())),
        "{text}"
    );
    assert!(text.contains("cargo xtask datasets fetch fashion-mnist"), "{text}");
    assert!(text.contains(DATA_VARIABLE), "{text}");
    let text = message(open("cats-vs-dogs", "train", &data), "cats-vs-dogs-128.tar");
    assert!(
        text.contains("datasets fetch cats-vs-dogs-full") && text.contains("folder:PATH"),
        "{text}"
    );
    assert!(matches!(pretrained("resnet20-cifar10", &data), Err(DataError::Missing { .. })));
    assert!(matches!(open("cifar10", "test-1000", &data), Err(DataError::Missing { .. })));

    let none = DataDir::at(dir.path().join("none"));
    assert!(matches!(open("cifar10", "train", &none), Err(DataError::NotAFolder { .. })));
}

#[test]
fn files_that_differ_from_the_manifest_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::at(dir.path());
    // Of the right size but with other content; cut off; too long; packed anew with other content.
    write(dir.path(), "cifar-10/data_batch_5.bin", &vec![0; 30_730_000]);
    let text = message(open("cifar10", "batch-5", &data), "data_batch_5.bin");
    assert!(
        text.contains("expected sha256:755304fc") && text.contains("got      sha256:"),
        "{text}"
    );
    write(dir.path(), "cifar-10/data_batch_5.bin", &vec![0; 30_000_000]);
    let text = message(open("cifar10", "batch-5", &data), "data_batch_5.bin");
    assert!(text.contains("30730000 bytes expected, 30000000 found"), "{text}");
    write(dir.path(), "cifar-10/data_batch_5.bin", &vec![0; 30_730_001]);
    assert!(matches!(open("cifar10", "batch-5", &data), Err(DataError::TrailingBytes { .. })));
    fs::remove_file(dir.path().join("cifar-10/data_batch_5.bin")).unwrap();
    let packed = zstd::encode_all(vec![0; 30_730_000].as_slice(), 1).unwrap();
    write(dir.path(), "cifar-10/data_batch_5.bin.zst", &packed);
    assert!(matches!(open("cifar10", "batch-5", &data), Err(DataError::Checksum { .. })));
    write(dir.path(), "cifar-10/data_batch_5.bin.zst", &packed[..packed.len() / 2]);
    assert!(matches!(open("cifar10", "batch-5", &data), Err(DataError::Unpack { .. })));

    // A file known by its MD5 alone, in the publisher's folder.
    write(dir.path(), "cifar-10/cifar-10-batches-bin/test_batch.bin", &vec![0; 30_730_000]);
    assert!(message(open("cifar10", "test", &data), "test_batch.bin").contains("md5:803d5f7f"));
    write(dir.path(), "pretrained/resnet20-cifar10.safetensors", b"weights");
    let error = pretrained("resnet20-cifar10", &data).unwrap_err().to_string();
    assert!(error.contains("1092968 bytes expected, 7 found"), "{error}");
    write(dir.path(), "pretrained/resnet20-cifar10.safetensors", &vec![0; 1_092_968]);
    let error = pretrained("resnet20-cifar10", &data).unwrap_err();
    assert!(matches!(error, DataError::Checksum { .. }), "{error}");
}

#[test]
fn cifar100_is_checked_by_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::at(dir.path());
    let mut bytes = Vec::with_capacity(30_740_000);
    for n in 0..10_000_u32 {
        bytes.extend([(n % 20) as u8, (n % 100) as u8]);
        bytes.extend([n as u8; 3072]);
    }
    write(dir.path(), "cifar-100/cifar-100-binary/test.bin", &bytes);
    let test = open("cifar100", "test", &data).unwrap();
    assert_eq!(class_counts(&*test), [100; 100]);
    assert_eq!(
        (test.classes()[test.label(1)].as_str(), test.image(3).unwrap()[[2, 31, 31]]),
        ("aquarium_fish", 3)
    );
    drop(test);
    bytes[3074 * 5 + 1] = 100;
    write(dir.path(), "cifar-100/cifar-100-binary/test.bin", &bytes);
    let text = message(open("cifar100", "test", &data), "test.bin");
    assert!(text.contains("record 5 has label 100"), "{text}");
}

#[test]
fn folders_and_archives_of_the_users_own() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::at(dir.path());
    for class in ["ant", "bee"] {
        for n in 0..10 {
            write(dir.path(), &format!("pictures/train/{class}/{n}.png"), &png(n));
        }
        write(dir.path(), &format!("pictures/test/{class}/0.png"), &png(99));
        write(dir.path(), &format!("flat/{class}/0.png"), &png(99));
    }
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all("set", dir.path().join("flat")).unwrap();
    write(
        dir.path(),
        "flat.tar.zst",
        &zstd::encode_all(archive.into_inner().unwrap().as_slice(), 3).unwrap(),
    );

    let counts =
        |name: &str, split: &str| open(name, split, &data).map(|dataset| class_counts(&*dataset));
    let pictures = format!("folder:{}", dir.path().join("pictures").display());
    assert_eq!(counts(&pictures, "all").unwrap(), [11, 11]);
    assert_eq!(counts(&pictures, "train").unwrap(), [9, 9]);
    assert_eq!(counts(&pictures, "validation").unwrap(), [1, 1]);
    assert_eq!(counts(&pictures, "train+validation").unwrap(), [10, 10]);
    assert_eq!(counts(&pictures, "test").unwrap(), [1, 1]);
    assert!(matches!(counts(&pictures, "tset"), Err(DataError::NoSplit { .. })));

    let flat = format!("tar:{}", dir.path().join("flat.tar.zst").display());
    assert_eq!(counts(&flat, "all").unwrap(), [1, 1]);
    assert_eq!(counts(&flat, "train").unwrap(), [1, 1]);
    assert!(matches!(counts(&flat, "validation"), Err(DataError::EmptyCut { .. })));
    assert!(matches!(counts(&flat, "test"), Err(DataError::NoSplit { .. })));
    assert!(matches!(counts("folder:/no/such/folder", "all"), Err(DataError::Io { .. })));
    assert!(matches!(counts("tar:/no/such.tar", "all"), Err(DataError::Io { .. })));

    // A file broken among good ones: the error comes when it is read.
    write(dir.path(), "flat/ant/1.jpg", b"\xff\xd8\xff\xe0 no image");
    let flat =
        open(&format!("folder:{}", dir.path().join("flat").display()), "all", &data).unwrap();
    let error = flat.image(1).unwrap_err();
    assert!(error.to_string().contains("1.jpg"), "{error}");
}
