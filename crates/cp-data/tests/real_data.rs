//! The published data sets, where `$POLYAD_DATA` says that they lie; otherwise these tests say that they were skipped.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is a failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use cp_data::{
    Crop, DATA_VARIABLE, DataDir, DataError, Dataset, Loader, LoaderConfig, Manifest, Order,
    Resize, Transform, class_counts, open, pretrained, sha256_file, tiles,
};

/// The data folder, if one is given and holds `folder`.
fn data(folder: &str) -> Option<DataDir> {
    let Some(root) = std::env::var_os(DATA_VARIABLE).map(PathBuf::from) else {
        println!("skipped: {DATA_VARIABLE} not set");
        return None;
    };
    if !root.join(folder).is_dir() {
        println!("skipped: no {folder}/ in {DATA_VARIABLE}");
        return None;
    }
    Some(DataDir::at(root))
}

fn opened(name: &str, split: &str, data: &DataDir) -> Arc<dyn Dataset> {
    open(name, split, data).unwrap_or_else(|error| panic!("{name}/{split}: {error}"))
}

/// Reads every image once, through a loader.
fn read_all(dataset: Arc<dyn Dataset>, transform: Transform) -> usize {
    let config = LoaderConfig { transform, workers: 4, ..LoaderConfig::default() };
    Loader::new(dataset, config).unwrap().map(|batch| batch.unwrap().labels.len()).sum()
}

#[test]
fn fashion_mnist() {
    let Some(data) = data("fashion-mnist") else { return };
    let whole = opened("fashion-mnist", "train+validation", &data);
    assert_eq!(class_counts(&*whole), [6000; 10]);
    assert_eq!(class_counts(&*opened("fashion-mnist", "test", &data)), [1000; 10]);
    assert_eq!(class_counts(&*opened("fashion-mnist", "train", &data)), [5400; 10]);
    let validation = opened("fashion-mnist", "validation", &data);
    assert_eq!(class_counts(&*validation), [600; 10]);
    assert_eq!(validation.name(), "fashion-mnist/validation");

    assert_eq!(whole.image(0).unwrap().shape(), [1, 28, 28]);
    assert_eq!(whole.classes()[whole.label(0)], "Ankle boot");
    let sources = whole.sources();
    assert_eq!(sources.len(), 2);
    assert!(sources[0].file.starts_with("fashion-mnist/train-images-idx3-ubyte"), "{sources:?}");
    assert!(sources.iter().all(|source| source.sha256.len() == 64));
}

#[test]
fn cifar10() {
    let Some(data) = data("cifar-10") else { return };
    let whole = opened("cifar10", "train+validation", &data);
    assert_eq!(class_counts(&*whole), [5000; 10]);
    assert_eq!(whole.sources().len(), 5);
    assert_eq!(whole.image(0).unwrap().shape(), [3, 32, 32]);
    // The first image of the first batch is a frog.
    assert_eq!(whole.classes()[whole.label(0)], "frog");
    assert_eq!(class_counts(&*opened("cifar10", "train", &data)), [4500; 10]);
    assert_eq!(class_counts(&*opened("cifar10", "validation", &data)), [500; 10]);
    assert_eq!(opened("cifar10", "train-1-4", &data).len(), 40_000);
    let fifth = opened("cifar10", "batch-5", &data);
    assert_eq!(fifth.len(), 10_000);
    assert_eq!(fifth.image(7).unwrap(), whole.image(40_007).unwrap());

    let first = opened("cifar10", "test-1000", &data);
    assert_eq!(class_counts(&*first), [103, 89, 100, 103, 90, 86, 112, 102, 106, 109]);
    assert_eq!(first.name(), "cifar10/test-1000");

    match open("cifar10", "test", &data) {
        Ok(test) => {
            assert_eq!(class_counts(&*test), [1000; 10]);
            assert_eq!(test.image(999).unwrap(), first.image(999).unwrap());
        }
        Err(error) => {
            assert!(matches!(error, DataError::Missing { .. }), "{error}");
            assert!(error.to_string().contains("`test-1000`"), "{error}");
        }
    }
}

#[test]
fn cifar10_batches_with_augmentation() {
    let Some(data) = data("cifar-10") else { return };
    let crop = Crop::Random { height: 32, width: 32, padding: 4 };
    let transform = Transform { crop, flip: true, ..Transform::default() };
    let order = Order::Shuffled { seed: 1, epoch: 0 };
    let dataset = opened("cifar10", "test-1000", &data);
    let with = |workers| {
        let config = LoaderConfig { transform, order, workers, ..LoaderConfig::default() };
        let batches: Result<Vec<_>, _> = Loader::new(dataset.clone(), config).unwrap().collect();
        batches.unwrap()
    };
    assert_eq!(with(1), with(4));
}

#[test]
fn cats_vs_dogs() {
    let Some(data) = data("cats-vs-dogs") else { return };
    let whole = opened("cats-vs-dogs", "train+validation", &data);
    assert_eq!(whole.classes(), ["cat", "dog"]);
    assert_eq!(class_counts(&*whole), [800, 800]);
    let test = opened("cats-vs-dogs", "test", &data);
    assert_eq!(class_counts(&*test), [400, 400]);
    assert_eq!(class_counts(&*opened("cats-vs-dogs", "train", &data)), [720, 720]);
    assert_eq!(class_counts(&*opened("cats-vs-dogs", "validation", &data)), [80, 80]);
    let crop = Crop::Center { height: 64, width: 64 };
    let transform =
        Transform { resize: Some(Resize::ShorterSide(64)), crop, ..Transform::default() };
    assert_eq!(read_all(whole, transform), 1600);
    assert_eq!(read_all(test, transform), 800);
}

/// The photographs have many sizes, from a shorter side of 33 pixels on; each has to come to the size of any network.
#[test]
fn cats_vs_dogs_at_any_size() {
    let Some(data) = data("cats-vs-dogs") else { return };
    let test = opened("cats-vs-dogs", "test", &data);
    for size in [32, 100, 112, 128, 224] {
        let (height, width) = (size, size);
        let crop = Crop::Center { height, width };
        let resize = Some(Resize::Cover { height, width });
        let transform = Transform { resize, crop, channels: Some(3), ..Transform::default() };
        assert_eq!(read_all(test.clone(), transform), 800, "at {size}");
    }
}

#[test]
fn imagenet_sample() {
    let Some(data) = data("imagenet-sample") else { return };
    let all = opened("imagenet-sample", "all", &data);
    assert_eq!((all.len(), all.classes().len()), (1000, 1000));
    assert!((0..1000).all(|index| all.label(index) == index));
    assert_eq!(all.classes()[0], "tench, Tinca tinca");
    assert_eq!(all.sources().len(), 2);
    let crop = Crop::Center { height: 224, width: 224 };
    assert_eq!(read_all(all, Transform { crop, ..Transform::default() }), 1000);
}

/// The files of `shared/golden/real` beside the workspace, or where `POLYAD_GOLDEN` says, below a data folder of their own: (folder, name, file).
fn golden(files: &[(&str, &str, &str)]) -> Option<(tempfile::TempDir, DataDir)> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    let root = std::env::var_os("POLYAD_GOLDEN").map_or_else(beside, PathBuf::from).join("real");
    let made = tempfile::tempdir().unwrap();
    for (folder, name, file) in files {
        if !root.join(file).is_file() {
            println!("skipped: no {}", root.join(file).display());
            return None;
        }
        std::fs::create_dir_all(made.path().join(folder)).unwrap();
        std::fs::copy(root.join(file), made.path().join(folder).join(name)).unwrap();
    }
    let data = DataDir::at(made.path().to_owned());
    Some((made, data))
}

#[test]
fn mnist_test_set() {
    let names = ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"];
    let files = [
        ("mnist", names[0], "mnist-t10k-images-idx3-ubyte.gz"),
        ("mnist", names[1], "mnist-t10k-labels-idx1-ubyte.gz"),
    ];
    let Some((_folder, data)) = golden(&files) else { return };
    let test = opened("mnist", "test", &data);
    assert_eq!(class_counts(&*test), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
    assert_eq!(test.image(0).unwrap().shape(), [1, 28, 28]);
    let error = open("mnist", "train", &data).err().unwrap();
    assert!(matches!(error, DataError::Missing { .. }), "{error}");
}

const TILES: (&str, &str, &str) = (
    "magnetic-tile-defects",
    "magnetic-tile-defects-100px.tar.gz",
    "magnetic-tile-defects-100px.tar.gz",
);

#[test]
fn magnetic_tiles() {
    let Some((_folder, data)) = golden(&[TILES]) else { return };
    let name = "magnetic-tile-defects";
    let all = opened(name, "all", &data);
    assert_eq!(all.classes(), ["blowhole", "break", "crack", "fray", "free", "uneven"]);
    assert_eq!(class_counts(&*all), [115, 85, 114, 96, 150, 103]);
    assert_eq!(all.image(0).unwrap().shape(), [1, 100, 100]);
    assert_eq!(all.name(), "magnetic-tile-defects/all");
    assert_eq!(all.sources().len(), 1);

    // Every file is in one of the three parts.
    let parts = ["train", "validation", "test"].map(|split| opened(name, split, &data));
    let files = |set: &Arc<dyn Dataset>| -> BTreeSet<String> {
        (0..set.len()).map(|index| set.entry(index).record).collect()
    };
    let of = parts.each_ref().map(files);
    let both = opened(name, "train+validation", &data);
    assert_eq!(files(&both), of[0].union(&of[1]).cloned().collect());
    assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), 663);
    assert_eq!(of.iter().flatten().collect::<BTreeSet<_>>().len(), 663);
    for part in &parts[1..] {
        for (count, whole) in class_counts(&**part).into_iter().zip(class_counts(&*all)) {
            let share = count as f64 / whole as f64;
            assert!((0.1..=0.16).contains(&share), "{}: {count} of {whole}", part.name());
        }
    }

    // By their names, `200.png`, `200flip.png` and `200rota.png` are of one tile; so are they by their pixels, with others.
    let tiles = tiles(&*all).unwrap();
    let side = |record: &str| of.iter().position(|part| part.contains(record)).unwrap();
    let mut sides = BTreeMap::new();
    let mut named = BTreeMap::new();
    let mut copies = 0;
    for (index, &tile) in tiles.iter().enumerate() {
        let record = all.entry(index).record;
        assert_eq!(*sides.entry(tile).or_insert(side(&record)), side(&record), "{record}");
        let (folder, file) = record.split_once('/').unwrap();
        let digits = file.trim_end_matches(|c: char| !c.is_ascii_digit());
        let first = *named.entry(format!("{folder}/{digits}")).or_insert(tile);
        assert_eq!(first, tile, "{record}");
        copies += usize::from(!file.trim_start_matches(digits).eq(".png"));
    }
    assert_eq!(copies, 57 + 2 * 32);
    // Photographs of one tile in another light: their marks are nearly the same.
    let tile = |record: &str| tiles[(0..663).find(|&i| all.entry(i).record == record).unwrap()];
    for other in ["MT_Crack/209.png", "MT_Crack/214.png", "MT_Crack/248flip.png"] {
        assert_eq!(tile("MT_Crack/201.png"), tile(other), "{other}");
    }
    let blank = |index: usize| all.image(index).unwrap().iter().all(|&pixel| pixel == 0);
    let blank: Vec<usize> = (0..663).filter(|&index| blank(index)).collect();
    assert_eq!(blank.len(), 150 + 4);
    assert_eq!(blank.iter().map(|&index| tiles[index]).collect::<BTreeSet<_>>().len(), 154);
    let mut count = [(); 6].map(|()| BTreeSet::new());
    tiles.iter().enumerate().for_each(|(index, &tile)| {
        count[all.label(index)].insert(tile);
    });
    assert_eq!(count.map(|tiles| tiles.len()), [38, 42, 37, 8, 150, 29 + 4]);
    assert_eq!(
        parts.each_ref().map(|part| class_counts(&**part)),
        [[79, 59, 78, 69, 104, 71], [18, 13, 18, 15, 23, 16], [18, 13, 18, 12, 23, 16]]
    );
}

/// The source's way to split has copies of tiles on both sides, and so has ours of that name.
#[test]
fn the_leaking_split_of_the_magnetic_tiles_leaks() {
    let Some((_folder, data)) = golden(&[TILES]) else { return };
    let [train, test] = ["train-leaking", "test-leaking"]
        .map(|split| opened("magnetic-tile-defects", split, &data));
    assert_eq!((train.len(), test.len()), (564, 99));
    let numbers = |set: &Arc<dyn Dataset>| -> BTreeSet<String> {
        let number = |record: &str| record.chars().filter(char::is_ascii_digit).collect();
        (0..set.len()).map(|index| number(&set.entry(index).record)).collect()
    };
    assert!(numbers(&train).intersection(&numbers(&test)).count() > 5);
}

#[test]
fn pretrained_weights() {
    let Some(data) = data("pretrained") else { return };
    let manifest = Manifest::builtin("pretrained").unwrap();
    let converted = || manifest.files.iter().filter(|file| file.path.ends_with(".safetensors"));
    assert_eq!(converted().count(), 5);
    for file in converted() {
        let (path, source) =
            pretrained(&file.path, &data).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(sha256_file(&path).unwrap(), source.sha256);
        assert_eq!(Some(std::fs::metadata(&path).unwrap().len()), file.bytes);
    }
    assert!(matches!(pretrained("resnet1000", &data), Err(DataError::UnknownDataset { .. })));
}

/// Every listed size and checksum, of packed and unpacked forms, against the files that are there.
#[test]
fn manifests_describe_the_files() {
    if data(".").is_none() {
        return;
    }
    let root = PathBuf::from(std::env::var_os(DATA_VARIABLE).unwrap());
    let mut found = 0;
    for name in Manifest::names() {
        let manifest = Manifest::builtin(name).unwrap();
        for file in &manifest.files {
            let plain = (&file.path, file.bytes, file.sha256.as_ref());
            let packed = file
                .packed
                .iter()
                .map(|packing| (&packing.path, Some(packing.bytes), Some(&packing.sha256)));
            for (path, bytes, sum) in std::iter::once(plain).chain(packed) {
                let path = root.join(&manifest.folder).join(path);
                if path.is_file() {
                    let length = std::fs::metadata(&path).unwrap().len();
                    assert!(bytes.is_none_or(|bytes| bytes == length), "{}", path.display());
                    // Some publishers print no sum of that kind.
                    if let Some(sum) = sum {
                        assert_eq!(sha256_file(&path).unwrap(), *sum, "{}", path.display());
                    }
                    found += 1;
                }
            }
        }
    }
    println!("{found} files compared");
}
