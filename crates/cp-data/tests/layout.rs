//! Which folders are taken for splits and classes, through the front door: labels never move and test images never train
//! without a word.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is a failure")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use cp_data::{DataDir, DataError, Dataset, Identity, class_counts, open, shared_entries};
use tempfile::TempDir;

/// A folder of files: images are 2×2 pixels, each of a shade of its own; a path that ends in `/` is an empty folder.
fn tree(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (n, file) in files.iter().enumerate() {
        let path = dir.path().join(file);
        if file.ends_with('/') {
            fs::create_dir_all(path).unwrap();
            continue;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if file.ends_with(".txt") {
            fs::write(path, "notes").unwrap();
        } else {
            image::RgbImage::from_pixel(2, 2, image::Rgb([n as u8; 3]))
                .save_with_format(path, image::ImageFormat::Png)
                .unwrap();
        }
    }
    dir
}

/// Opens a split of a folder, and of an archive of the same, which have to agree.
fn opened(dir: &Path, split: &str) -> Result<Arc<dyn Dataset>, DataError> {
    let data = DataDir::at(dir);
    let found = open(&format!("folder:{}", dir.display()), split, &data);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", dir).unwrap();
    let path = elsewhere.path().join("x.tar.zst");
    fs::write(&path, zstd::encode_all(archive.into_inner().unwrap().as_slice(), 1).unwrap())
        .unwrap();
    let packed = open(&format!("tar:{}", path.display()), split, &data);
    match (&found, &packed) {
        (Ok(found), Ok(packed)) => {
            assert_eq!(found.classes(), packed.classes());
            assert_eq!(class_counts(&**found), class_counts(&**packed));
        }
        (Err(found), Err(packed)) => assert_eq!(
            std::mem::discriminant(found),
            std::mem::discriminant(packed),
            "{found} against {packed}"
        ),
        (one, other) => panic!("{:?} against {:?}", one.as_ref().err(), other.as_ref().err()),
    }
    found
}

fn notes(set: &dyn Dataset) -> Vec<String> {
    set.notes().iter().map(ToString::to_string).collect()
}

/// The split has these classes with these numbers of images.
#[track_caller]
fn check(files: &[&str], split: &str, expected: &[(&str, usize)]) -> Vec<String> {
    let dir = tree(files);
    let set =
        opened(dir.path(), split).unwrap_or_else(|error| panic!("{split} of {files:?}: {error}"));
    let counts = class_counts(&*set);
    let found: Vec<(&str, usize)> =
        set.classes().iter().map(String::as_str).zip(counts.iter().copied()).collect();
    assert_eq!(found, expected, "{split} of {files:?}");
    notes(&*set)
}

/// The split is refused in a message of these words.
#[track_caller]
fn refused(files: &[&str], split: &str, words: &[&str]) {
    let dir = tree(files);
    let error =
        opened(dir.path(), split).err().unwrap_or_else(|| panic!("{split} of {files:?} is taken"));
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not name {word:?}");
    }
}

#[test]
fn the_class_is_the_folder_below_that_of_the_split() {
    check(&["test/a/images/1.png", "test/b/images/1.png"], "test", &[("a", 1), ("b", 1)]);
    check(
        &["test/a/part0/1.png", "test/a/part1/1.png", "test/b/part0/x/y/1.png"],
        "test",
        &[("a", 2), ("b", 1)],
    );
    check(&["test/a/1.png", "test/a/deep/2.png", "test/b/1.png"], "test", &[("a", 2), ("b", 1)]);
    check(&["a/images/1.png", "b/images/1.png", "b/2.png"], "all", &[("a", 1), ("b", 2)]);
    check(&["a/1.png", "b/deep/1.png"], "all", &[("a", 1), ("b", 1)]);
}

#[test]
fn a_class_without_images_keeps_its_place_or_is_named() {
    let said = check(
        &["train/a/1.png", "train/b/1.png", "train/c/1.png", "test/a/1.png", "test/c/1.png"],
        "test",
        &[("a", 1), ("b", 0), ("c", 1)],
    );
    assert!(said.contains(&"test/ has no image of the class b".to_owned()), "{said:?}");
    check(
        &["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/"],
        "test",
        &[("a", 1), ("b", 0)],
    );
    refused(
        &["test/a/1.png", "test/b/", "test/c/1.png"],
        "test",
        &["test/b/", "no image", "classes.txt"],
    );
    refused(&["test/a/1.png", "test/b/notes.txt"], "test", &["test/b/"]);
    refused(&["a/1.png", "b/x/y/"], "all", &["class folder b/"]);
    let said = check(&["test/a/1.png", "test/c/1.png"], "test", &[("a", 1), ("c", 1)]);
    assert!(said.contains(&"2 classes: a, c".to_owned()), "{said:?}");
}

#[test]
fn classes_without_a_partner_are_refused() {
    let train = ["train/a_red/1.png", "train/b/1.png"];
    let with = |test: &'static str| [train[0], train[1], test];
    refused(&with("test/A_red/1.png"), "test", &["test/A_red", "train/a_red", "case or spelling"]);
    refused(&with("test/A_red/1.png"), "train", &["test/A_red", "train/a_red"]);
    refused(&with("test/zebra/1.png"), "test", &["test/zebra/", "no partner in train/"]);
    refused(&["train/Ka\u{308}fer/1.png", "test/K\u{e4}fer/1.png"], "test", &["one class, or two"]);
    refused(&["test/cat/1.png", "val/Cat/1.png"], "test", &["test/cat", "val/Cat"]);
    refused(&["train/cat/1.png", "train/dog/1.png", "test/cat /1.png"], "test", &["test/cat "]);
    // In one split, they are two: upper and lower case letters.
    let said =
        check(&["train/a/1.png", "train/A/1.png", "test/A/1.png"], "test", &[("A", 1), ("a", 0)]);
    assert!(said.iter().any(|note| note.contains("A and a are two classes")), "{said:?}");
}

#[test]
fn a_list_of_classes_decides() {
    let files = ["test/cat/1.png", "test/dog/1.png", "test/notes/x.txt"];
    let with = |list: &str| {
        let dir = tree(&files);
        fs::write(dir.path().join("classes.txt"), list).unwrap();
        opened(dir.path(), "test")
            .map(|set| (set.classes().to_vec(), class_counts(&*set), notes(&*set)))
    };
    let (classes, counts, said) = with("dog\nbird\r\ncat\n").unwrap();
    assert_eq!(
        (classes, counts),
        (["dog", "bird", "cat"].map(str::to_owned).to_vec(), vec![1, 0, 1])
    );
    assert!(said[0].contains("the order of classes.txt"), "{said:?}");
    assert!(said.iter().any(|note| note.contains("no image of the class bird")), "{said:?}");
    for (list, words) in
        [("cat\n", "test/dog/"), ("cat\ndog\ncat\n", "classes.txt:3"), ("\n\n", "classes.txt:1")]
    {
        let text = with(list).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn splits_go_by_many_names() {
    for (train, test) in [
        ("training_set", "test_set"),
        ("Train", "Test"),
        ("TRAIN", "TEST"),
        ("Training", "Testing"),
        ("seg_train", "seg_test"),
        ("dogs_train", "dogs_test"),
        ("data/train", "data/test"),
        ("training_set/training_set", "test_set/test_set"),
        ("a/b/trainset", "a/b/testset"),
        ("train/images", "test/images"),
    ] {
        let mut files = Vec::new();
        for class in ["cat", "dog"] {
            files.extend((0..20).map(|n| format!("{train}/{class}/{n}.png")));
            files.extend((0..5).map(|n| format!("{test}/{class}/{n}.png")));
        }
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let said = check(&files, "train", &[("cat", 18), ("dog", 18)]);
        assert!(
            said.iter().any(|note| note.contains("train is 36 of the 40 images of ")),
            "{said:?}"
        );
        assert!(said.iter().any(|note| note.contains(test)), "{said:?}");
        check(&files, "validation", &[("cat", 2), ("dog", 2)]);
        check(&files, "test", &[("cat", 5), ("dog", 5)]);
        check(&files, "train+validation", &[("cat", 20), ("dog", 20)]);
    }
    let three = ["Train/a/1.png", "Valid/a/1.png", "Valid/a/2.png", "Test/a/1.png"];
    check(&three, "validation", &[("a", 2)]);
    check(&three, "val", &[("a", 2)]);
    check(&three, "train", &[("a", 1)]);
    check(&three, "train+validation", &[("a", 3)]);
}

#[test]
fn train_is_never_cut_from_what_may_be_test_images() {
    refused(&["test/a/1.png", "test/b/1.png"], "train", &["test/ (test)", "--split"]);
    refused(&["val/a/1.png", "val/b/1.png"], "train", &["val/ (validation)"]);
    refused(
        &["one/a/1.png", "one/b/1.png", "two/a/1.png", "two/b/1.png"],
        "train",
        &["one/, two/", "train/"],
    );
    refused(
        &["cat/train/1.png", "cat/test/1.png", "dog/train/1.png"],
        "train",
        &["cat/test/", "cat/train/"],
    );
    refused(&["train/a/1.png", "Train/a/1.png"], "train", &["Train/, train/"]);
    refused(&["x/train/a/1.png", "x/test/a/1.png", "y/a/1.png"], "train", &["x/test/"]);
    refused(&["train/a/1.png", "train/test/a/1.png"], "train", &["train/test/"]);
    refused(&["train/a/1.png", "extra/1.png"], "train", &["extra/", "directly"]);
    refused(&["cat/1.png", "dog/1.png", "test/1.png"], "train", &["test/1.png", "no class folder"]);
    refused(&["train/1.png", "train/2.png"], "train", &["train/1.png"]);
    // A train is a class among vehicles.
    check(
        &["bus/1.png", "car/1.png", "train/1.png"],
        "all",
        &[("bus", 1), ("car", 1), ("train", 1)],
    );
    // A folder by another name is a split if it is asked for.
    check(
        &["one/a/1.png", "one/b/1.png", "two/a/1.png", "two/b/1.png"],
        "two",
        &[("a", 1), ("b", 1)],
    );
    let said = check(&["train/a/1.png", "extra/a/1.png"], "train+validation", &[("a", 1)]);
    assert!(said.iter().any(|note| note.contains("extra/")), "{said:?}");
}

#[test]
fn a_split_folder_without_images_is_not_absent() {
    let train = ["train/a/1.png", "train/b/1.png"];
    for empty in ["validation/", "validation/a/notes.txt", "val/1.txt", "Valid/a/"] {
        let files = [train[0], train[1], empty];
        let folder = empty.split('/').next().unwrap();
        for split in ["train", "validation", "train+validation"] {
            refused(&files, split, &[folder, "no"]);
        }
        let said = check(&files, "all", &[("a", 1), ("b", 1)]);
        assert!(
            said.iter().any(|note| note.contains(&format!("{folder}/ holds no image"))),
            "{said:?}"
        );
    }
    // Test images of no class do not keep from training.
    let said =
        check(&["train/a/1.png", "test1/1.png", "test1/2.png"], "train+validation", &[("a", 1)]);
    assert!(
        said.iter().any(|note| note.contains("2 images that lie directly in test1/")),
        "{said:?}"
    );
    refused(&["train/a/1.png", "test1/1.png"], "test", &["test1/", "in no class folder"]);
    refused(&["train/a/1.png", "test/x/notes.txt"], "test", &["test/", ".txt"]);
    refused(&["a/1.png", "b/1.png"], "validation", &["too few"]);
}

#[test]
fn what_was_left_out_is_counted() {
    let said = check(
        &["test/a/1.png", "test/a/2.txt", "test/a/3.txt", "test/a/.#1.png", "README.txt"],
        "test",
        &[("a", 1)],
    );
    assert!(
        said.contains(&"left out: 3 files that are no images by name (3 .txt)".to_owned()),
        "{said:?}"
    );
    let dir = tree(&["README.txt", "x/1.txt"]);
    let error = opened(dir.path(), "test").err().unwrap().to_string();
    assert!(error.contains("2 .txt"), "{error}");
}

#[test]
fn splits_tell_what_they_share() {
    let mut files: Vec<String> = (0..20).map(|n| format!("train/a/{n}.png")).collect();
    files.push("test/a/x.png".to_owned());
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let dir = tree(&files);
    fs::copy(dir.path().join("train/a/3.png"), dir.path().join("test/a/copy.png")).unwrap();
    let sets: BTreeMap<&str, _> = ["train", "validation", "train+validation", "test", "all"]
        .into_iter()
        .map(|split| (split, opened(dir.path(), split).unwrap()))
        .collect();
    let shared = |one, other| shared_entries(&*sets[one], &*sets[other]).len();
    assert_eq!(shared("train", "validation"), 0);
    assert_eq!(shared("train", "train+validation"), 18);
    assert_eq!(shared("train+validation", "test"), 0);
    assert_eq!(shared("test", "all"), 2);
    let identity = |split| Identity::of(&*sets[split]).unwrap();
    assert_eq!(identity("test").overlap(&identity("train+validation")).equal.len(), 1);
    assert_eq!(identity("train").digest(), identity("train").digest());
    assert_ne!(identity("train").digest(), identity("validation").digest());
}
