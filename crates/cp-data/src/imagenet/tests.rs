//! Copies of ImageNet in every layout, through the front door.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use image::ImageFormat;
use tempfile::TempDir;

use super::meta::tests::mat;
use crate::decode::tests::file;
use crate::{
    DataDir, DataError, Dataset, Identity, Manifest, augmentation, class_counts, dataset_names,
    open,
};

const TENCH: &str = "n01440764";
const FISH: &str = "n01443537";
const SNAKE: &str = "n01729322";
const DOG: &str = "n02119789";

/// The class of each image of a flat `val`, in order.
const TRUTH: [&str; 6] = [DOG, TENCH, SNAKE, TENCH, FISH, DOG];

/// ILSVRC2012_IDs, which are in no order of the WordNet ids; 1001 is a group of classes.
const IDS: [(u32, &str); 6] =
    [(1, DOG), (2, TENCH), (3, "n02100735"), (290, SNAKE), (1000, FISH), (1001, "n00001740")];

fn write(root: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Shades of grey, which JPEG keeps, tell the images apart.
fn jpeg(shade: u8) -> Vec<u8> {
    file(ImageFormat::Jpeg, true, shade)
}

fn val_name(n: usize) -> String {
    format!("ILSVRC2012_val_{:08}.JPEG", n + 1)
}

/// The images of [`TRUTH`] in one folder.
fn flat(root: &Path, folder: &str) {
    for n in 0..TRUTH.len() {
        write(root, &format!("{folder}/{}", val_name(n)), jpeg(n as u8 * 20));
    }
}

/// Five training images of each of these classes.
fn train(root: &Path, classes: &[&str]) {
    for class in classes {
        for n in 0..5 {
            write(root, &format!("train/{class}/{class}_{n}.JPEG"), jpeg(100 + n));
        }
    }
}

fn opened(root: &Path, split: &str) -> Result<Arc<dyn Dataset>, DataError> {
    open("imagenet", split, &DataDir::at(root))
}

/// The message of the error, which has all of these words.
#[track_caller]
fn refused(root: &Path, split: &str, words: &[&str]) {
    let text = opened(root, split).err().map(|error| error.to_string()).unwrap_or_default();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

/// `test` has the images of [`TRUTH`], each with its label, whatever their order.
#[track_caller]
fn check(root: &Path, classes: &[&str]) -> Arc<dyn Dataset> {
    let test = opened(root, "test").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((test.name(), test.len()), ("imagenet/test", TRUTH.len()));
    assert_eq!(test.classes(), classes);
    for index in 0..test.len() {
        let entry = test.entry(index).file;
        let number = entry.rsplit_once("val_").unwrap().1.trim_end_matches(".JPEG");
        let n: usize = number.parse::<usize>().unwrap() - 1;
        assert_eq!(test.classes()[test.label(index)], TRUTH[n], "{entry}");
        let image = test.image(index).unwrap();
        assert!(image[[0, 0, 0]].abs_diff(n as u8 * 20) < 8, "{entry}: {}", image[[0, 0, 0]]);
    }
    test
}

const SORTED: [&str; 4] = [TENCH, FISH, SNAKE, DOG];

fn kaggle(truth: &[&str]) -> String {
    let mut list = "ImageId,PredictionString\n".to_owned();
    // Kaggle's is in no order, and has a box or several for each image.
    for (n, wnid) in truth.iter().enumerate().rev() {
        let name = val_name(n);
        list +=
            &format!("{},{wnid} 85 1 499 272 {wnid} 1 2 3 4 \n", name.trim_end_matches(".JPEG"));
    }
    list
}

fn ground_truth() -> String {
    let id = |wnid| IDS.iter().find(|(_, known)| *known == wnid).unwrap().0;
    TRUTH.iter().map(|&wnid| format!("{}\n", id(wnid))).collect()
}

#[test]
fn class_folders_in_both() {
    for (folder, within) in [("val", ""), ("validation", "imagenet/"), ("ILSVRC2012_img_val", "")] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(within);
        // Written out of order; a class that `val` has no image of; files that are no images.
        for (n, class) in TRUTH.iter().enumerate() {
            write(&root, &format!("{folder}/{class}/{}", val_name(n)), jpeg(n as u8 * 20));
        }
        train(&root, &[DOG, SNAKE, "n09835506", TENCH, FISH]);
        write(&root, &format!("train/{TENCH}/n01440764_7.JPEG"), file(ImageFormat::Png, false, 9));
        write(&root, "train/notes.txt", "none");
        write(&root, "train/.cache/x", "none");
        let test = check(dir.path(), &[TENCH, FISH, SNAKE, DOG, "n09835506"]);
        let notes: Vec<String> = test.notes().iter().map(ToString::to_string).collect();
        assert!(notes[0].starts_with("5 classes: n01440764, n01443537"), "{notes:?}");
        assert!(notes[1].ends_with("has no image of the class n09835506"), "{notes:?}");
        assert!(test.sources().is_empty());

        let whole = opened(dir.path(), "train+validation").unwrap();
        assert_eq!(
            (whole.name(), class_counts(&*whole)),
            ("imagenet/train+validation", vec![6, 5, 5, 5, 5])
        );
        // A PNG by the name of a JPEG, of which ImageNet has one too.
        assert_eq!(whole.image(5).unwrap().shape(), [3, 14, 20]);
        assert!(whole.notes().iter().any(|note| note.to_string().contains("1 .txt")));
        assert_eq!(class_counts(&*opened(dir.path(), "train").unwrap()), [5, 4, 4, 4, 4]);
        let validation = opened(dir.path(), "validation").unwrap();
        assert_eq!(
            (validation.name(), class_counts(&*validation)),
            ("imagenet/validation", vec![1; 5])
        );
        assert_eq!(opened(dir.path(), "val").unwrap().name(), "imagenet/test");
        assert_eq!(
            Identity::of(&*test).unwrap().overlap(&Identity::of(&*whole).unwrap()).shared.len(),
            0
        );
    }
}

/// A flat `val` with the files of a list, here and there.
#[track_caller]
fn check_list(files: &[(&str, &[u8])], expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    flat(dir.path(), "val");
    for (path, bytes) in files {
        write(dir.path(), path, bytes);
    }
    let test = check(dir.path(), &SORTED);
    let read: Vec<&str> = test.sources().iter().map(|source| source.file.as_str()).collect();
    assert_eq!(read, expected);
    assert!(test.sources().iter().all(|source| source.sha256.len() == 64));
    let note = test.notes()[1].to_string();
    assert!(note.ends_with(&format!("val/ are those of {}", expected.join(", "))), "{note}");
    // With the training images beside, their folders are the classes.
    drop(test);
    train(dir.path(), &[DOG, SNAKE, "n09835506", TENCH, FISH]);
    check(dir.path(), &[TENCH, FISH, SNAKE, DOG, "n09835506"]);
}

#[test]
fn a_flat_folder_with_a_list() {
    let csv = "LOC_val_solution.csv";
    let text = "imagenet_2012_validation_synset_labels.txt";
    let numbers = "ILSVRC2012_validation_ground_truth.txt";
    let kaggle = kaggle(&TRUTH);
    let words = TRUTH.join("\r\n");
    let truth = ground_truth();
    check_list(&[(csv, kaggle.as_bytes())], &[csv]);
    let headless = kaggle.split_once('\n').unwrap().1;
    check_list(&[(csv, headless.as_bytes())], &[csv]);
    check_list(&[(text, words.as_bytes())], &[text]);
    for packed in [false, true] {
        let meta = mat(&IDS, packed);
        for folder in ["", "devkit/", "devkit/data/", "ILSVRC2012_devkit_t12/data/"] {
            let [list, mat] = [numbers, "meta.mat"].map(|name| format!("{folder}{name}"));
            check_list(&[(&list, truth.as_bytes()), (&mat, &meta)], &[&list, &mat]);
        }
        check_list(
            &[(numbers, truth.as_bytes()), ("devkit/meta.mat", &meta)],
            &[numbers, "devkit/meta.mat"],
        );
    }
    // In this order of preference: the others are not even read.
    let all: [(&str, &[u8]); 3] = [(csv, kaggle.as_bytes()), (text, b"none"), (numbers, b"none")];
    check_list(&all, &[csv]);
    check_list(
        &[("devkit/imagenet_2012_validation_synset_labels.txt", words.as_bytes()), all[2]],
        &["devkit/imagenet_2012_validation_synset_labels.txt"],
    );
}

#[test]
fn kaggles_folders() {
    for within in ["", "imagenet/"] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(within);
        let images = root.join("ILSVRC/Data/CLS-LOC");
        flat(&images, "val");
        train(&images, &SORTED);
        write(&root, "LOC_val_solution.csv", kaggle(&TRUTH));
        check(dir.path(), &SORTED);
        check(&images, &SORTED);
        assert_eq!(opened(dir.path(), "train+validation").unwrap().len(), 20);
    }
}

#[test]
fn a_part_of_the_classes_and_images() {
    let dir = tempfile::tempdir().unwrap();
    flat(dir.path(), "val");
    fs::remove_file(dir.path().join("val").join(val_name(4))).unwrap();
    // Kaggle's lines name their images, so that any part of them will do.
    let mut list = kaggle(&TRUTH);
    list = list.lines().filter(|line| !line.contains("00000005")).collect::<Vec<_>>().join("\n");
    write(dir.path(), "LOC_val_solution.csv", &list);
    let test = opened(dir.path(), "test").unwrap();
    assert_eq!(
        (test.classes(), class_counts(&*test)),
        (&[TENCH, SNAKE, DOG].map(str::to_owned)[..], vec![2, 1, 2])
    );
    drop(test);
    // An empty folder for training images tells nothing, and is no training data.
    fs::create_dir_all(dir.path().join("train")).unwrap();
    assert_eq!(opened(dir.path(), "test").unwrap().classes().len(), 3);
    refused(dir.path(), "train", &["train", "no images for the split \"train\""]);
}

#[test]
fn classes_that_the_training_images_do_not_have() {
    let dir = tempfile::tempdir().unwrap();
    flat(dir.path(), "val");
    write(dir.path(), "LOC_val_solution.csv", kaggle(&TRUTH));
    train(dir.path(), &[TENCH, FISH, DOG]);
    refused(
        dir.path(),
        "test",
        &[SNAKE, "ILSVRC2012_val_00000003", "LOC_val_solution.csv", "none of the 3 classes"],
    );

    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &format!("val/{SNAKE}/1.JPEG"), jpeg(1));
    train(dir.path(), &[TENCH, FISH]);
    refused(
        dir.path(),
        "test",
        &["the class folder n01729322/", "none of the 2 classes", "way out"],
    );
}

/// A flat `val` with a list that is refused.
#[track_caller]
fn check_bad(name: &str, list: impl AsRef<[u8]>, words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    flat(dir.path(), "val");
    write(dir.path(), name, list);
    write(dir.path(), "meta.mat", mat(&IDS, true));
    refused(dir.path(), "test", &[words, &[name, "way out"]].concat());
}

#[test]
fn bad_lines() {
    let csv = "LOC_val_solution.csv";
    let text = "imagenet_2012_validation_synset_labels.txt";
    let numbers = "ILSVRC2012_validation_ground_truth.txt";
    let with = |list: &str, line: usize, other: &str| {
        let mut lines: Vec<&str> = list.lines().collect();
        lines[line - 1] = other;
        lines.join("\n")
    };
    let (kaggle, words, truth) = (kaggle(&TRUTH), TRUTH.join("\n"), ground_truth());
    for line in [
        "ILSVRC2012_val_00000005",
        "ILSVRC2012_val_00000005,",
        ",n01440764 1 2 3 4",
        "a,tench 1 2 3 4",
        "",
    ] {
        check_bad(
            csv,
            with(&kaggle, 3, line),
            &[&format!("{csv}:3: {line:?}"), "a comma and a WordNet id"],
        );
    }
    let twice = with(&kaggle, 4, kaggle.lines().nth(2).unwrap());
    check_bad(csv, twice, &[&format!("{csv}:4:"), "no line above has"]);
    for line in ["n0144076", "n014407640", "tench", "1", "", "n0144076x"] {
        check_bad(
            text,
            with(&words, 2, line),
            &[&format!("{text}:2: {line:?}"), "a WordNet id such as n01440764"],
        );
    }
    for line in ["0", "1001", "-1", "1.0", "99999999999999", "x", ""] {
        check_bad(
            numbers,
            with(&truth, 6, line),
            &[&format!("{numbers}:6: {line:?}"), "from 1 to 1000"].map(|word| {
                // A blank last line is the end of the list.
                if line.is_empty() { "5 labels" } else { word }
            }),
        );
    }
    check_bad(
        numbers,
        with(&truth, 2, "500"),
        &[&format!("{numbers}:2: \"500\""), "a number that meta.mat has"],
    );
    check_bad(text, b"n01440764\n\xff\xfe\0\n", &[&format!("{text}:2: "), "xFF"]);
    check_bad(text, b"", &[&format!("{text}:1: ")]);
    check_bad(text, vec![b'n'; 1 << 20], &[&format!("{text}:1: ")]);
}

#[test]
fn labels_and_images_that_do_not_belong_together() {
    let text = "imagenet_2012_validation_synset_labels.txt";
    let words =
        |count: usize| TRUTH.iter().cycle().take(count).copied().collect::<Vec<_>>().join("\n");
    check_bad(
        text,
        words(5),
        &["5 labels", "6 images", "without a label: ILSVRC2012_val_00000006.JPEG"],
    );
    let more = [
        "8 labels",
        "6 images",
        "without an image: ILSVRC2012_val_00000007, ILSVRC2012_val_00000008",
    ];
    check_bad(text, words(8), &more);
    check_bad(text, words(100), &["100 labels", "and 82 more"]);

    let dir = tempfile::tempdir().unwrap();
    flat(dir.path(), "val");
    fs::rename(dir.path().join("val").join(val_name(2)), dir.path().join("val/other.JPEG"))
        .unwrap();
    write(dir.path(), text, words(6));
    refused(
        dir.path(),
        "test",
        &[
            "6 labels",
            "6 images",
            "without a label: other.JPEG",
            "without an image: ILSVRC2012_val_00000003",
        ],
    );
    fs::rename(dir.path().join("val/other.JPEG"), dir.path().join("val").join(val_name(2)))
        .unwrap();
    fs::write(dir.path().join("val/ILSVRC2012_val_00000001.png"), jpeg(1)).unwrap();
    refused(dir.path(), "test", &["ILSVRC2012_val_00000001.png", "have the same name"]);
}

#[test]
fn lists_that_are_missing_or_damaged() {
    let dir = tempfile::tempdir().unwrap();
    flat(dir.path(), "val");
    let lists = [
        "LOC_val_solution.csv",
        "imagenet_2012_validation_synset_labels.txt",
        "ILSVRC2012_validation_ground_truth.txt",
        "meta.mat",
        "WNID/",
    ];
    refused(dir.path(), "test", &lists);
    let numbers = "devkit/data/ILSVRC2012_validation_ground_truth.txt";
    write(dir.path(), numbers, ground_truth());
    refused(dir.path(), "test", &[numbers, "meta.mat", "is missing", lists[0], lists[1]]);

    for packed in [false, true] {
        let meta = mat(&IDS, packed);
        for cut in [0, 100, 128, 140, meta.len() / 2, meta.len() - 1] {
            write(dir.path(), "devkit/data/meta.mat", &meta[..cut]);
            refused(
                dir.path(),
                "test",
                &["devkit/data/meta.mat: ", "MATLAB 5", "devkit_t12.tar.gz", lists[0]],
            );
        }
    }
    write(dir.path(), "devkit/data/meta.mat", vec![0; (16 << 20) + 1]);
    refused(dir.path(), "test", &["meta.mat", "more than 16777216 bytes"]);
    write(dir.path(), "devkit/data/meta.mat", mat(&IDS, true));
    check(dir.path(), &SORTED);
}

#[test]
fn folders_that_are_missing_or_mixed() {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let searched = format!("{}/ (--data)", dir.path().display());
    refused(
        dir.path(),
        "test",
        &["imagenet", &searched, "image-net.org", "train/WNID", "LOC_val_solution.csv", "--data"],
    );
    train(dir.path(), &SORTED);
    refused(
        dir.path(),
        "test",
        &["has no folder val/ or validation/", "split test", "expected: train/WNID"],
    );
    flat(dir.path(), "val");
    write(dir.path(), &format!("val/{TENCH}/1.JPEG"), jpeg(1));
    refused(
        dir.path(),
        "test",
        &[
            "ILSVRC2012_val_00000001.JPEG",
            "n01440764/1.JPEG",
            "all images into class folders, or none",
        ],
    );
    flat(dir.path(), "validation");
    refused(dir.path(), "train", &["val/ and validation/ stand for the same images", "leave one"]);
    fs::remove_dir_all(dir.path().join("val")).unwrap();
    fs::remove_dir_all(dir.path().join("validation")).unwrap();

    write(dir.path(), "train/1.JPEG", jpeg(1));
    refused(dir.path(), "train", &["1.JPEG lies in no class folder"]);
    fs::remove_file(dir.path().join("train/1.JPEG")).unwrap();
    write(dir.path(), "train/n09835506.tar", b"none");
    refused(dir.path(), "train", &["n09835506.tar is not unpacked", "tar -xf"]);
    fs::create_dir(dir.path().join("train/n09835506")).unwrap();
    let whole = opened(dir.path(), "train+validation").unwrap();
    assert_eq!(class_counts(&*whole), [5, 5, 5, 5, 0]);
    write(dir.path(), "train/tench/1.JPEG", jpeg(1));
    drop(whole);
    refused(dir.path(), "train", &["tench/", "no WordNet id", "folder:PATH"]);

    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &format!("val/{TENCH}/1.JPEG"), jpeg(1));
    refused(dir.path(), "train", &["has no folder train/"]);
    write(dir.path(), &format!("train/{TENCH}/1.JPEG"), jpeg(1));
    refused(dir.path(), "validation", &["1 examples are too few"]);
    refused(dir.path(), "all", &["no split \"all\"", "train+validation", "val"]);
}

#[test]
fn a_broken_image_is_an_error_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    flat(dir.path(), "val");
    write(dir.path(), "LOC_val_solution.csv", kaggle(&TRUTH));
    write(dir.path(), &format!("val/{}", val_name(1)), &jpeg(1)[..200]);
    let test = opened(dir.path(), "test").unwrap();
    assert!(test.image(0).is_ok());
    let error = test.image(1).unwrap_err().to_string();
    assert!(error.contains("ILSVRC2012_val_00000002.JPEG"), "{error}");
    assert!(matches!(test.image(6), Err(DataError::Index { .. })));
}

#[cfg(unix)]
#[test]
fn links() {
    use std::os::unix::fs::symlink;
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train(elsewhere.path(), &[TENCH, DOG]);
    symlink(elsewhere.path().join("train"), dir.path().join("train")).unwrap();
    assert_eq!(opened(dir.path(), "train+validation").unwrap().len(), 10);
    symlink("/nowhere", elsewhere.path().join("train").join(FISH)).unwrap();
    refused(dir.path(), "train", &[FISH, "leads nowhere, to /nowhere"]);
}

#[test]
fn it_is_known_by_name() {
    let splits = dataset_names().find(|(name, _)| *name == "imagenet").unwrap().1;
    assert_eq!(splits, ["train", "validation", "train+validation", "test", "val"]);
    assert!(augmentation("imagenet").flip);
}

#[test]
fn published_weights_have_seen_all_training_images() {
    // `validation` is a part of these, so that weights from elsewhere, trained on the whole, have seen it.
    let pretrained = Manifest::builtin("pretrained").unwrap();
    let of_imagenet: Vec<&String> = (pretrained.files.iter())
        .flat_map(|file| &file.trained_on)
        .filter(|name| name.starts_with("imagenet/"))
        .collect();
    assert!(!of_imagenet.is_empty());
    assert!(of_imagenet.iter().all(|name| *name == "imagenet/train+validation"), "{of_imagenet:?}");
}
