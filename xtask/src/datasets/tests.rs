//! End to end: made-up files in the publishers' layouts, fetched from a server on this machine and read through cp-data.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cp_data::{DataDir, DataError, Dataset, Note, class_counts, open_as, pretrained_of};
use flate2::Compression;
use flate2::write::GzEncoder;
use image::{ImageFormat, Rgb, RgbImage};
use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;

use super::fetch::{Places, fetch, resolve, writable};
use super::*;
use crate::loopback::{Route, Server, curl_is_here};
use crate::sums::Sums;

fn places(folders: &[&Path]) -> Places {
    let search = folders.iter().map(|&folder| folder.to_owned()).collect();
    Places { search, patience: Patience { tries: 2, pause: Duration::ZERO } }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn md5(bytes: &[u8]) -> String {
    use md5::Md5;
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn picture(format: ImageFormat, shade: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(9, 6, Rgb([shade; 3])).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// The manifest as both programs read it: with `head` for what every one needs.
fn both(head: &str, rest: &str) -> (Manifest, cp_data::Manifest) {
    let text = format!(
        "{head}\ntitle = 'T'\npublisher = 'P'\nhomepage = 'H'\nlicense = 'L'\nexact = 'yes'\n{rest}"
    );
    (toml::from_str(&text).unwrap(), cp_data::Manifest::parse("test", &text).unwrap())
}

/// No example of one split is one of the other.
fn disjoint(one: &dyn Dataset, other: &dyn Dataset) {
    let entries = |set: &dyn Dataset| -> BTreeSet<String> {
        (0..set.len()).map(|index| set.entry(index).to_string()).collect()
    };
    let (a, b) = (entries(one), entries(other));
    assert_eq!((a.len(), b.len()), (one.len(), other.len()));
    assert!(a.is_disjoint(&b));
}

#[test]
fn mnist_in_its_layout() {
    if !curl_is_here() {
        return;
    }
    let idx = |shape: &[u32], bytes: &[u8]| {
        let mut file = vec![0, 0, 8, shape.len() as u8];
        shape.iter().for_each(|length| file.extend(length.to_be_bytes()));
        file.extend(bytes);
        file
    };
    let server = Server::start();
    let mut rest = "classes = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']\n".to_owned();
    for (part, count) in [("train", 200_u32), ("t10k", 10)] {
        let pixels: Vec<u8> = (0..count * 28 * 28).map(|i| (i / 784 % 251) as u8).collect();
        let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
        for (name, file) in [
            ("images-idx3", idx(&[count, 28, 28], &pixels)),
            ("labels-idx1", idx(&[count], &labels)),
        ] {
            let (path, packed) = (format!("{part}-{name}-ubyte"), gzip(&file));
            // The first connection breaks in the middle.
            let cuts = [packed.len() / 2].into();
            let url = server.put(&format!("{path}.gz"), Route { cuts, ..Route::file(&*packed) });
            rest += &format!(
                "[[file]]\npath = '{path}'\nbytes = {}\nexamples = {count}\n\
                 packed = [{{ path = '{path}.gz', bytes = {}, sha256 = '{}' }}]\n\
                 [[download]]\nurls = ['{url}']\npath = '{path}.gz'\nbytes = {}\nmd5 = '{}'\n",
                file.len(),
                packed.len(),
                sha256(&packed),
                packed.len(),
                md5(&packed),
            );
        }
    }
    let (ours, theirs) = both("name = 'mnist'\nfolder = 'mnist'", &rest);
    let cache = tempfile::tempdir().unwrap();
    fetch(&ours, &[], &places(&[cache.path()])).unwrap();
    assert_eq!(server.starts("t10k-labels-idx1-ubyte.gz").len(), 2, "one cut, one more request");
    // Nothing is fetched twice.
    fetch(&ours, &[], &places(&[cache.path()])).unwrap();
    assert_eq!(server.starts("t10k-labels-idx1-ubyte.gz").len(), 2);

    let data = DataDir::at(cache.path());
    let open = |split| open_as(&theirs, split, &data).unwrap();
    let (train, validation, test) = (open("train"), open("validation"), open("test"));
    assert_eq!(class_counts(&*open("train+validation")), [20; 10]);
    assert_eq!(class_counts(&*test), [1; 10]);
    assert_eq!((train.len(), validation.len()), (180, 20));
    assert_eq!(test.classes()[test.label(3)], "3");
    assert_eq!(test.image(3).unwrap(), ndarray::Array3::from_elem((1, 28, 28), 3));
    disjoint(&*train, &*validation);
    // One flipped byte in the cache: fetch sees it, and so does the reader.
    let path = cache.path().join("mnist/t10k-labels-idx1-ubyte.gz");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    drop(test);
    assert!(open_as(&theirs, "test", &data).is_err());
    fetch(&ours, &[], &places(&[cache.path()])).unwrap();
    assert_eq!(open("test").len(), 10);
}

/// The layout of Microsoft's zip: `PetImages/Cat/N.jpg`, a Thumbs.db, two texts, and two members that are no pictures.
fn pets(damaged: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    };
    add("readme[1].txt", b"DISCLAIMER");
    for (class, shade) in [("Cat", 40_u8), ("Dog", 200)] {
        add(&format!("PetImages/{class}/Thumbs.db"), b"no picture");
        for number in 0..20 {
            let name = format!("PetImages/{class}/{number}.jpg");
            let bad = damaged.iter().find(|(bad, _)| *bad == name);
            let good = picture(ImageFormat::Jpeg, shade + number);
            add(&name, bad.map_or(&*good, |(_, bytes)| bytes));
        }
    }
    zip.finish().unwrap().into_inner()
}

fn pets_manifest(url: &str, zip: &[u8]) -> (Manifest, cp_data::Manifest) {
    both(
        "name = 'cats-vs-dogs-full'\nfolder = 'pets'",
        &format!(
            "classes = ['cat', 'dog']\nfolders = ['PetImages/Cat', 'PetImages/Dog']\ntest_every = 5\n\
             [[file]]\npath = 'pets.zip'\nurls = ['{url}']\nbytes = {}\nfirst_fetch = true",
            zip.len()
        ),
    )
}

#[test]
fn cats_and_dogs_in_the_publishers_zip() {
    if !curl_is_here() {
        return;
    }
    let whole = picture(ImageFormat::Jpeg, 7);
    let cut = &whole[..whole.len() - 30];
    let zip = pets(&[("PetImages/Cat/11.jpg", b""), ("PetImages/Dog/7.jpg", cut)]);
    let server = Server::start();
    let (ours, theirs) = pets_manifest(&server.file("pets.zip", &*zip), &zip);
    let cache = tempfile::tempdir().unwrap();
    fetch(&ours, &[], &places(&[cache.path()])).unwrap();
    let data = DataDir::at(cache.path());
    let open = |split| open_as(&theirs, split, &data).unwrap();
    let (train, test) = (open("train+validation"), open("test"));
    assert_eq!(train.classes(), ["cat", "dog"]);
    assert_eq!((class_counts(&*train), class_counts(&*test)), (vec![15, 15], vec![4, 4]));
    disjoint(&*train, &*test);
    // Multiples of five are for testing, in the order of the numbers.
    let names: Vec<String> = (0..4).map(|index| test.entry(index).record).collect();
    assert_eq!(names, [0, 5, 10, 15].map(|number| format!("PetImages/Cat/{number}.jpg")));
    let shade = test.image(5).unwrap()[[0, 0, 0]];
    assert!(shade.abs_diff(205) < 6, "{shade}: Dog/5.jpg");
    let notes = open("train").notes();
    let Some(Note::Damaged { members }) = notes.first() else { panic!("{notes:?}") };
    assert_eq!(members.len(), 2);
    assert_eq!(members[0], "PetImages/Cat/11.jpg (an empty file)");
    assert!(members[1].starts_with("PetImages/Dog/7.jpg (cut off"), "{}", members[1]);
    assert!(test.notes().is_empty());
    disjoint(&*open("train"), &*open("validation"));

    // The sum of the first fetch is checked when the file is read, too.
    drop((train, test));
    let path = cache.path().join("pets/pets.zip");
    let mut other = zip.clone();
    let at = other.windows(10).position(|bytes| bytes == b"DISCLAIMER").unwrap();
    other[at] = b'd';
    fs::write(&path, &other).unwrap();
    let error = open_as(&theirs, "test", &data).err().unwrap().to_string();
    assert!(error.contains("at its first fetch") && error.contains("pets.zip"), "{error}");
    fetch(&ours, &[], &places(&[cache.path()])).unwrap();
    assert_eq!(fs::read(&path).unwrap(), zip);
}

#[test]
fn a_zip_that_is_damaged_here_is_an_error_with_the_name() {
    let damage = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut zip = pets(&[]);
        change(&mut zip);
        let (_, theirs) = pets_manifest("http://unused/", &zip);
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir(cache.path().join("pets")).unwrap();
        fs::write(cache.path().join("pets/pets.zip"), zip).unwrap();
        let error = open_as(&theirs, "test", &DataDir::at(cache.path())).err().unwrap();
        (error.to_string(), matches!(error, DataError::Zip { .. }))
    };
    // A byte of a picture that is not the publisher's: the archive's own sum shows it.
    let (error, zip) = damage(&|zip| {
        let name = b"PetImages/Dog/10.jpg";
        let at = zip.windows(name.len()).position(|bytes| bytes == name).unwrap();
        zip[at + name.len() + 100] ^= 0x55;
    });
    assert!(zip && error.contains("PetImages/Dog/10.jpg") && error.contains("CRC"), "{error}");
    let (error, zip) = damage(&|zip| zip.truncate(zip.len() / 2));
    assert!(zip && error.contains("pets.zip"), "{error}");
    let (error, _) = damage(&|zip| *zip = b"<html>".to_vec());
    assert!(error.contains("expected a zip archive"), "{error}");
    // So many pictures that are none: not the publisher's archive.
    let names: Vec<String> = (0..3).map(|n| format!("PetImages/Cat/{}.jpg", n * 5)).collect();
    let bad: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b"GIF89a"[..])).collect();
    let (error, _) = damage(&|zip| *zip = pets(&bad));
    assert!(error.contains("3 of 8 images") && error.contains("Cat/0.jpg"), "{error}");
}

#[test]
fn imagenette_in_its_archive() {
    if !curl_is_here() {
        return;
    }
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: String, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes).unwrap();
    };
    add("imagenette2-160/noisy_imagenette.csv".into(), b"path,label");
    for (split, count) in [("train", 10), ("val", 3)] {
        for (wnid, shade) in [("n01440764", 10), ("n02102040", 90)] {
            for n in 0..count {
                let bytes = picture(ImageFormat::Jpeg, shade + n);
                add(format!("imagenette2-160/{split}/{wnid}/{split}_{n}.JPEG"), &bytes);
            }
        }
    }
    let tgz = gzip(&tar.into_inner().unwrap());
    let server = Server::start();
    let to = server.file("elsewhere/x.tgz", &*tgz);
    let url = server.put("x.tgz", Route { to: Some(to), ..Route::default() });
    let rest = format!(
        "classes = ['tench', 'English springer']\nfolders = ['n01440764', 'n02102040']\n\
         [[file]]\npath = 'x.tgz'\nurls = ['{url}']\nmd5 = '{}'",
        md5(&tgz)
    );
    let (ours, theirs) = both("name = 'imagenette'\nfolder = 'imagenette'", &rest);
    let cache = tempfile::tempdir().unwrap();
    fetch(&ours, &[], &places(&[cache.path()])).unwrap();
    let data = DataDir::at(cache.path());
    let open = |split| open_as(&theirs, split, &data).unwrap();
    let (train, test) = (open("train+validation"), open("test"));
    assert_eq!(test.classes(), ["tench", "English springer"]);
    assert_eq!((class_counts(&*train), class_counts(&*test)), (vec![10, 10], vec![3, 3]));
    assert_eq!(test.image(0).unwrap().shape(), [3, 6, 9]);
    assert_eq!(class_counts(&*open("validation")), [1, 1]);
    disjoint(&*train, &*test);
    // Other folders than the manifest's would be other labels.
    let swapped = rest.replace("'n02102040'", "'n02979186'");
    let (_, other) = both("name = 'imagenette'\nfolder = 'imagenette'", &swapped);
    let error = open_as(&other, "test", &data).err().unwrap().to_string();
    assert!(
        error.contains("n02102040") && error.contains("expected n01440764, n02979186"),
        "{error}"
    );
}

#[test]
fn published_weights_stay_as_they_are() {
    if !curl_is_here() {
        return;
    }
    let file = [&b"PK\x03\x04"[..], &[7; 5000]].concat();
    let old = [&b"\x80\x02\x8a\x0a"[..], &[9; 100]].concat();
    let digits = sha256(&file)[..8].to_owned();
    let server = Server::start();
    let net = format!("net-{digits}.pth");
    let url = server.file(&net, &*file);
    let old_url = server.file("old.th", &*old);
    let rest = format!(
        "obtain = 'Ask.'\n[[file]]\npath = '{net}'\nname = 'net'\nurls = ['{url}']\nsha256_prefix = '{digits}'\n\
         about_mib = 0.1\narch = 'resnet18'\ninput = [3, 224, 224]\npreprocess = 'imagenet'\n\
         [[file]]\npath = 'old.safetensors'\noriginal = 'old.th'\nbytes = 3\nsha256 = '{}'\n\
         [[file]]\npath = 'old.th'\nurls = ['{old_url}']\nsha256 = '{}'\n\
         [[file]]\npath = 'none.safetensors'\nbytes = 3\n",
        "0".repeat(64),
        sha256(&old),
    );
    let (ours, theirs) = both("name = 'pretrained'\nfolder = 'pretrained'", &rest);
    let cache = tempfile::tempdir().unwrap();
    let data = DataDir::at(cache.path());
    let error = pretrained_of(&theirs, "net", &data).unwrap_err().to_string();
    assert!(error.contains("cargo xtask datasets fetch net`"), "{error}");
    let error = pretrained_of(&theirs, "old", &data).unwrap_err().to_string();
    assert!(
        error.contains("old.safetensors was not found") && error.contains("fetch old`"),
        "{error}"
    );
    let error = pretrained_of(&theirs, "none", &data).unwrap_err().to_string();
    assert!(error.contains("Ask."), "{error}");

    let names = ["net".to_owned(), "old".to_owned()];
    for (manifest, labels) in resolve(vec![ours], &names).unwrap() {
        assert_eq!(labels, names);
        fetch(&manifest, &labels, &places(&[cache.path()])).unwrap();
        let error = fetch(&manifest, &["none".into()], &places(&[cache.path()])).unwrap_err();
        assert!(error.to_string().contains("no address") && error.to_string().contains("Ask."));
        let error = resolve(vec![manifest], &["nett".into()]).err().unwrap().to_string();
        assert!(error.contains("'nett'") && error.contains("networks: net, old"), "{error}");
    }
    let (path, source) = pretrained_of(&theirs, "net", &data).unwrap();
    assert_eq!((fs::read(&path).unwrap(), source.sha256), (file.clone(), sha256(&file)));
    assert_eq!(source.file, format!("pretrained/{net}"));
    // The converted file is not here, the one that it was converted from is.
    let (path, _) = pretrained_of(&theirs, "old", &data).unwrap();
    assert!(path.ends_with("pretrained/old.th"));
    // Eight digits are not the whole sum: what was kept at the first fetch is.
    let kept = cache.path().join(format!("pretrained/{net}.sha256"));
    assert_eq!(fs::read_to_string(&kept).unwrap(), format!("{}  {net}\n", sha256(&file)));
    fs::write(&kept, format!("{digits}{}  {net}\n", "0".repeat(56))).unwrap();
    let error = pretrained_of(&theirs, "net", &data).unwrap_err().to_string();
    assert!(error.contains("first fetch"), "{error}");
}

#[test]
fn archives_are_unpacked_once() {
    if !curl_is_here() {
        return;
    }
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(0o644);
    tar.append_data(&mut header, "members/a.bin", &b"abc"[..]).unwrap();
    let tgz = gzip(&tar.into_inner().unwrap());
    let server = Server::start();
    let url = server.file("a.tar.gz", &*tgz);
    let (ours, _) = both(
        "name = 'x'\nfolder = 'x'",
        &format!(
            "[[file]]\npath = 'a.bin'\nalso = ['members/a.bin']\nbytes = 3\n\
             [[file]]\npath = 'first.bin'\npart_of = 'a.bin'\nbytes = 1\n\
             [[download]]\nurls = ['{url}']\npath = 'a.tar.gz'\nunpack = 'tar.gz'\nmd5 = '{}'",
            md5(&tgz)
        ),
    );
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("x");
    fs::create_dir_all(folder.join("members")).unwrap();
    fs::write(folder.join("members/left-over"), "").unwrap();
    for _ in 0..2 {
        fetch(&ours, &[], &places(&[cache.path()])).unwrap();
        assert_eq!(fs::read_to_string(folder.join("members/a.bin")).unwrap(), "abc");
        assert!(!folder.join("members/left-over").exists());
    }
    assert_eq!(server.starts("a.tar.gz"), [0]);
    fs::remove_file(folder.join("members/a.bin")).unwrap();
    fetch(&ours, &[], &places(&[cache.path()])).unwrap();
    assert_eq!(fs::read_to_string(folder.join("members/a.bin")).unwrap(), "abc");
}

#[test]
fn a_folder_that_cannot_be_written_is_passed_over() {
    let (data, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // A file in the place of the folder: what root cannot write either.
    fs::write(data.path().join("x"), "").unwrap();
    let search: Vec<PathBuf> = vec![data.path().into(), cache.path().into()];
    assert_eq!(writable(&search, "x").unwrap(), cache.path().join("x"));
    assert_eq!(writable(&search, "y").unwrap(), data.path().join("y"));
    let error = writable(&search[..1], "x").unwrap_err().to_string();
    assert!(error.contains("cannot be written") && error.contains("--data"), "{error}");
    assert_eq!(fs::read_dir(cache.path().join("x")).unwrap().count(), 0, "the probe is gone");
}

#[test]
fn a_wrong_file_fails_the_check_and_nothing_is_an_error_only_when_asked_by_name() {
    let (set, _) = both(
        "name = 'x'\nfolder = 'x'",
        &format!("[[file]]\npath = 'x.bin'\nbytes = 3\nsha256 = '{}'", sha256(b"abc")),
    );
    let data = tempfile::tempdir().unwrap();
    let places = [data.path().to_owned()];
    let sets = [set];
    verify(&sets, &places, false).unwrap();
    let error = verify(&sets, &places, true).unwrap_err().to_string();
    assert!(error.contains("no file of x"), "{error}");
    let path = data.path().join("x/x.bin");
    fs::create_dir(data.path().join("x")).unwrap();
    let check = |content: &str| {
        fs::write(&path, content).unwrap();
        format!("{:?}", verify(&sets, &places, false).unwrap())
    };
    assert_eq!(check("abc"), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(check("abd"), format!("{:?}", ExitCode::FAILURE));
    assert_eq!(Sums::of(&path).unwrap().sha256, sha256(b"abd"));
}

#[test]
fn a_set_without_address_says_how_to_get_it() {
    let (set, _) = both("name = 'x'\nfolder = 'x'", "obtain = 'Ask the publisher.'");
    let error = fetch(&set, &[], &places(&[Path::new("unused")])).unwrap_err().to_string();
    assert!(error.contains("Ask the publisher."), "{error}");
}
