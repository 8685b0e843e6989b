//! What can go wrong while finding, checking and reading data.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::note::some;
use crate::{EntryId, FileKind, printable_path};

/// An error of this crate. Each message names the file or the option and, where there is one, the way out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// No data set has this name.
    #[error("unknown data set {name:?}; known are {}, folder:PATH and tar:PATH", known.join(", "))]
    UnknownDataset {
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },

    /// The data set exists, but has no such split.
    #[error("{dataset} has no split {split:?}; it has {}", known.join(", "))]
    UnknownSplit {
        /// Name of the data set.
        dataset: String,
        /// The split that was asked for.
        split: String,
        /// The splits that exist.
        known: Vec<String>,
    },

    /// A file of the data set lies in none of the places searched.
    #[error(
        "{dataset}: {file} was not found.\n  searched: {}\n  way out: {way_out}",
        searched.join("\n            ")
    )]
    Missing {
        /// Name of the data set.
        dataset: String,
        /// The file or folder wanted, with its alternatives in packing.
        file: String,
        /// The folders searched, each with where its name comes from.
        searched: Vec<String>,
        /// What to do about it.
        way_out: String,
    },

    /// A folder given by the user does not exist.
    #[error("{path}: no such folder (given by {origin})", path = printable_path(path))]
    NotAFolder {
        /// Where the name comes from: `--data` or the environment variable.
        origin: String,
        /// The folder.
        path: PathBuf,
    },

    /// The operating system could not open, list or read a file.
    #[error("{path}: {source}", path = printable_path(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// A file differs from the one that the manifest describes.
    #[error(
        "{path}: wrong checksum, so the file is damaged, incomplete or another version.\n  expected {expected}\n  \
         got      {got} ({bytes} bytes)\n  way out: delete it and run `cargo xtask datasets fetch {dataset}`",
        path = printable_path(path)
    )]
    Checksum {
        /// Name of the data set.
        dataset: String,
        /// The file.
        path: PathBuf,
        /// The algorithm and sum in the manifest, such as `sha256:…`.
        expected: String,
        /// The algorithm and sum of the file as read.
        got: String,
        /// Size of the file as read.
        bytes: u64,
    },

    /// The file beside a data file that should hold its sum at the first fetch does not.
    #[error(
        "{path}: holds no SHA-256 (64 hexadecimal digits)\n  way out: delete it, and fetch the data again",
        path = printable_path(path)
    )]
    KeptSum {
        /// The file of the sum.
        path: PathBuf,
    },

    /// A compressed file cannot be unpacked: it is cut off or damaged.
    #[error("{path}: cannot unpack as {format}, the file is damaged or cut off: {source}", path = printable_path(path))]
    Unpack {
        /// The compressed file.
        path: PathBuf,
        /// `gzip` or `zstd`.
        format: &'static str,
        /// The decoder's error.
        source: io::Error,
    },

    /// A file ends before what its header or its manifest promises.
    #[error("{path}: cut off: {expected} bytes expected, {got} found", path = printable_path(path))]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that there should be (unpacked).
        expected: u64,
        /// Bytes that there are.
        got: u64,
    },

    /// A file goes on after the end that its header promises.
    #[error("{path}: more bytes than the header promises ({expected})", path = printable_path(path))]
    TrailingBytes {
        /// The file.
        path: PathBuf,
        /// Bytes that there should be (unpacked).
        expected: u64,
    },

    /// The first four bytes are not those of an IDX file of unsigned bytes.
    #[error(
        "{path}: not an IDX file of unsigned bytes: it starts with {magic:02x?}, expected [00, 00, 08, dimensions]",
        path = printable_path(path)
    )]
    IdxMagic {
        /// The file.
        path: PathBuf,
        /// Its first four bytes.
        magic: [u8; 4],
    },

    /// An IDX file has another number of axes than its use calls for.
    #[error("{path}: an IDX array of shape {shape:?}, expected {expected}", path = printable_path(path))]
    IdxShape {
        /// The file.
        path: PathBuf,
        /// The shape in the header.
        shape: Vec<usize>,
        /// The shape wanted, in words.
        expected: &'static str,
    },

    /// Images and labels do not match in number.
    #[error("{labels} labels in {label_file}, but {images} images in {image_file}",
        label_file = printable_path(label_file), image_file = printable_path(image_file))]
    Counts {
        /// The file of the images.
        image_file: PathBuf,
        /// Images in it.
        images: usize,
        /// The file of the labels.
        label_file: PathBuf,
        /// Labels in it.
        labels: usize,
    },

    /// A CIFAR file does not consist of whole records.
    #[error(
        "{path}: {bytes} bytes are not a whole number of CIFAR records of {record_bytes} bytes: record {record} is cut off",
        path = printable_path(path)
    )]
    CifarLength {
        /// The file.
        path: PathBuf,
        /// Its (unpacked) size.
        bytes: usize,
        /// Size of one record.
        record_bytes: usize,
        /// The incomplete record, from 0.
        record: usize,
    },

    /// A label is not the index of a class.
    #[error("{path}: record {record} has label {label}, but there are {classes} classes", path = printable_path(path))]
    Label {
        /// The file (for images in memory: the data set's name).
        path: PathBuf,
        /// The example, from 0.
        record: usize,
        /// Its label.
        label: usize,
        /// Number of classes.
        classes: usize,
    },

    /// A file holds another number of examples than the manifest says.
    #[error("{path}: {got} examples, expected {expected}", path = printable_path(path))]
    Examples {
        /// The file.
        path: PathBuf,
        /// Examples by the manifest.
        expected: usize,
        /// Examples found.
        got: usize,
    },

    /// A file is of another kind than was asked for, by its content.
    #[error("{path}: is {}{kind}; expected {expected}\n  way out: {way_out}", within(*packing), path = printable_path(path))]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// How the file is packed, if the kind is that of what is inside: `gzip` or `zstd`.
        packing: Option<&'static str>,
        /// What it is.
        kind: FileKind,
        /// What it should be.
        expected: &'static str,
        /// What to do about it.
        way_out: String,
    },

    /// A folder was given for a file.
    #[error("{path}: is a folder; expected {expected}; folder:PATH reads images from folders", path = printable_path(path))]
    IsAFolder {
        /// The folder.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },

    /// A tar archive cannot be read.
    #[error(
        "{path}: damaged or cut off at entry {entry} of the archive{}: {source}\n  way out: fetch or write it again",
        behind(after.as_deref()), path = printable_path(path)
    )]
    Tar {
        /// The archive.
        path: PathBuf,
        /// The entry, counted from 0.
        entry: usize,
        /// Name of the entry before it, the last that is whole.
        after: Option<String>,
        /// The reader's error.
        source: io::Error,
    },

    /// A zip archive cannot be read, or one of its members is damaged.
    #[error(
        "{}: damaged or cut off zip archive: {source}\n  way out: fetch or write it again",
        place(path, entry.as_deref())
    )]
    Zip {
        /// The archive.
        path: PathBuf,
        /// The member, where it is one.
        entry: Option<String>,
        /// The reader's error.
        source: io::Error,
    },

    /// So many images of an archive are damaged that it cannot be the publisher's.
    #[error(
        "{path}: {damaged} of {images} images are damaged, the first {first}\n  way out: delete the file and fetch it again",
        path = printable_path(path)
    )]
    TooDamaged {
        /// The archive.
        path: PathBuf,
        /// Damaged images.
        damaged: usize,
        /// All images looked at.
        images: usize,
        /// One of them, with what is wrong.
        first: String,
    },

    /// The class folders of an archive are not those that the manifest names.
    #[error("{path}: has the class folders {}; expected {}", found.join(", "), expected.join(", "), path = printable_path(path))]
    ClassFolders {
        /// The archive.
        path: PathBuf,
        /// Folders by the manifest.
        expected: Vec<String>,
        /// Folders in the archive.
        found: Vec<String>,
    },

    /// A manifest lacks what its data set needs.
    #[error("the manifest of {name} {what}")]
    ManifestField {
        /// Name of the data set.
        name: String,
        /// What it needs.
        what: &'static str,
    },

    /// An image cannot be decoded.
    #[error("{}: cannot decode the image: {source}", place(path, entry.as_deref()))]
    Decode {
        /// The file, or the archive that holds it.
        path: PathBuf,
        /// The entry of the archive.
        entry: Option<String>,
        /// The decoder's error.
        source: image::ImageError,
    },

    /// A file by the name of an image is none, or none that can be read.
    #[error("{}: is {kind}; expected JPEG or PNG\n  way out: {way_out}", place(path, entry.as_deref()))]
    NoImage {
        /// The file, or the archive that holds it.
        path: PathBuf,
        /// The entry of the archive.
        entry: Option<String>,
        /// What it is.
        kind: FileKind,
        /// What to do about it.
        way_out: String,
    },

    /// A JPEG has no end marker after its last scan.
    #[error("{}: the JPEG is cut off (no end-of-image marker in its {bytes} bytes)", place(path, entry.as_deref()))]
    TruncatedJpeg {
        /// The file, or the archive that holds it.
        path: PathBuf,
        /// The entry of the archive.
        entry: Option<String>,
        /// Its size.
        bytes: usize,
    },

    /// A folder or archive holds no image where some were expected.
    #[error("{path}: no images for {wanted}; expected files CLASS/NAME.jpg, .jpeg or .png", path = printable_path(path))]
    NoImages {
        /// The folder or archive.
        path: PathBuf,
        /// The split, or "any class".
        wanted: String,
    },

    /// A folder holds no image at all.
    #[error("{path}: no image in it; expected files NAME.jpg, .jpeg or .png, at any depth", path = printable_path(path))]
    NoPictures {
        /// The folder.
        path: PathBuf,
    },

    /// An image lies in no class folder.
    #[error("{path}: {entry} lies in no class folder; expected CLASS/NAME.jpg", path = printable_path(path))]
    NoClass {
        /// The folder or archive.
        path: PathBuf,
        /// The image.
        entry: String,
    },

    /// The folders can be read in more than one way, or in none.
    #[error(
        "{path}: {what}\n  expected: SPLIT/CLASS/IMAGE with the splits train/, validation/ and test/, or CLASS/IMAGE\n  \
         way out: {way_out}",
        path = printable_path(path)
    )]
    Layout {
        /// The folder or archive.
        path: PathBuf,
        /// What there is.
        what: String,
        /// What to do about it.
        way_out: String,
    },

    /// A data set of features was asked for pictures.
    #[error("{dataset}: holds features that a network computed, and no pictures")]
    NoPixels {
        /// The data set.
        dataset: String,
    },

    /// Of a data set of features, not every example has some, of one shape.
    #[error("{dataset}: its examples do not all have features of one shape")]
    NoFeatures {
        /// The data set.
        dataset: String,
    },

    /// A folder or archive of the user's own has no such split.
    #[error("{path}: has no images for the split {split:?}; it has {has}; name {instead} with --split", path = printable_path(path))]
    NoSplit {
        /// The folder or archive.
        path: PathBuf,
        /// The split that was asked for.
        split: String,
        /// What there is, in words.
        has: String,
        /// What could be asked for.
        instead: &'static str,
    },

    /// The folder of a split holds no image in a class folder.
    #[error(
        "{path}: the split {split:?} needs images of {folder}/, which has none in class folders ({files})\n  expected: \
         {folder}/CLASS/NAME.jpg, .jpeg or .png\n  way out: put images there, or remove the folder",
        path = printable_path(path)
    )]
    EmptySplit {
        /// The folder or archive.
        path: PathBuf,
        /// The split that was asked for.
        split: String,
        /// The folder of the split.
        folder: String,
        /// What lies in it instead, in words.
        files: String,
    },

    /// A cut of training data leaves nothing for one of its parts.
    #[error(
        "{dataset}: {examples} examples are too few to hold some out for validation, so that the split {split:?} has none; \
         add images (in folder:PATH and tar:PATH, a folder validation/ will do)"
    )]
    EmptyCut {
        /// The data set.
        dataset: String,
        /// The split that was asked for.
        split: String,
        /// Examples of the whole.
        examples: usize,
    },

    /// A folder in the place of a class holds no image in any split.
    #[error(
        "{path}: the class folder {folder}/ holds no image (expected .jpg, .jpeg or .png), so that it is not clear whether it \
         is a class\n  way out: put images there, or remove it; or list the classes in classes.txt, one a line",
        path = printable_path(path)
    )]
    EmptyClass {
        /// The folder or archive.
        path: PathBuf,
        /// The class folder.
        folder: String,
    },

    /// Two class folders of different splits differ in case or spelling alone.
    #[error(
        "{path}: the class folders {one}/ and {other}/ differ in case or spelling alone: one class, or two?\n  way out: give \
         them the same name, or list both classes in classes.txt, one a line",
        path = printable_path(path)
    )]
    ClassTwins {
        /// The folder or archive.
        path: PathBuf,
        /// One folder.
        one: String,
        /// The other.
        other: String,
    },

    /// A class folder of another split that the training data do not have.
    #[error(
        "{path}: the class folder {folder}/ has no partner in {train}/\n  way out: rename it to that of its class, remove it, or \
         list all classes in classes.txt, one a line, in the order of the labels",
        path = printable_path(path)
    )]
    NoPartner {
        /// The folder or archive.
        path: PathBuf,
        /// The class folder.
        folder: String,
        /// The folder of the training data.
        train: String,
    },

    /// A class folder that the list of classes does not name.
    #[error("{path}: the class folder {folder}/ is not in the list {list}; add a line with its name, or remove it", path = printable_path(path))]
    NotListed {
        /// The folder or archive.
        path: PathBuf,
        /// The class folder.
        folder: String,
        /// The list.
        list: String,
    },

    /// A link that should be an image leads nowhere.
    #[error(
        "{}: a link that leads nowhere, to {target}; bring the file back, or remove the link",
        place(path, entry.as_deref()), target = printable_path(target)
    )]
    DeadLink {
        /// The link, or the archive that holds it.
        path: PathBuf,
        /// The entry of the archive.
        entry: Option<String>,
        /// What it leads to.
        target: PathBuf,
    },

    /// A line of a class list does not have the form that it should.
    #[error("{path}:{line}: {expected}", path = printable_path(path))]
    ClassList {
        /// The list.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What a line should be.
        expected: &'static str,
    },

    /// A class list and an archive do not name the same images.
    #[error("{path}: has no image {entry:?}, which {list} names", path = printable_path(path), list = printable_path(list))]
    NotInArchive {
        /// The archive.
        path: PathBuf,
        /// The image.
        entry: String,
        /// The class list.
        list: PathBuf,
    },

    /// The parts of a data set in memory do not fit one another.
    #[error("{name}: {images} images and {labels} labels")]
    Lengths {
        /// The data set.
        name: String,
        /// Number of images.
        images: usize,
        /// Number of labels.
        labels: usize,
    },

    /// An index is not below the number of examples.
    #[error("{dataset}: there is no example {index}, the data set has {len}")]
    Index {
        /// The data set.
        dataset: String,
        /// The index asked for.
        index: usize,
        /// Number of examples.
        len: usize,
    },

    /// The images of one batch differ in shape.
    #[error(
        "{dataset}: example {index} ({entry}) has shape {got:?} (channels, height, width) after the transform, but its batch has \
         {expected:?}; set `Transform::resize`, `crop` or `channels` so that all agree"
    )]
    BatchShape {
        /// The data set.
        dataset: String,
        /// The example.
        index: usize,
        /// Where it lies.
        entry: Box<EntryId>,
        /// Shape of the batch's first image.
        expected: [usize; 3],
        /// Shape of this image.
        got: [usize; 3],
    },

    /// An example cannot be brought to the form wanted.
    #[error("{entry}: {source}")]
    Example {
        /// Where it lies.
        entry: Box<EntryId>,
        /// What does not fit.
        source: Box<DataError>,
    },

    /// A crop does not fit into the image.
    #[error(
        "a crop of {crop_height}x{crop_width} does not fit into an image of {height}x{width} (padding included); \
         resize first or crop less"
    )]
    CropTooLarge {
        /// Height of the crop.
        crop_height: usize,
        /// Width of the crop.
        crop_width: usize,
        /// Height of the image with its padding.
        height: usize,
        /// Width of the image with its padding.
        width: usize,
    },

    /// There is no conversion between these numbers of channels.
    #[error(
        "cannot make an image of {to} channels from one of {from}; known are 1 -> 3 and 3 -> 1"
    )]
    Channels {
        /// Channels of the image.
        from: usize,
        /// Channels wanted.
        to: usize,
    },

    /// An option has a value that makes no sense.
    #[error("{option} = {value}: {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What it has to be.
        expected: &'static str,
    },

    /// A worker thread could not be started.
    #[error("cannot start a worker thread: {0}")]
    Thread(io::Error),

    /// The worker threads ended before all batches were made.
    #[error("{dataset}: the threads that read it ended before all batches were made")]
    WorkersGone {
        /// The data set.
        dataset: String,
    },

    /// Reading an example panicked: a bug in a decoder, kept from taking the whole program down.
    #[error("{dataset}: reading example {index} failed within the decoder: {message}")]
    Panic {
        /// The data set.
        dataset: String,
        /// The example.
        index: usize,
        /// What the panic said.
        message: String,
    },

    /// A manifest cannot be read.
    #[error("manifest {name}: {source}")]
    Manifest {
        /// The manifest.
        name: String,
        /// The parser's error.
        source: Box<toml::de::Error>,
    },

    /// A copy of ImageNet does not lie in a layout that is known, or lacks something.
    #[error(
        "{path}: {what}\n  expected: train/WNID/*.JPEG for training; for the test val/WNID/*.JPEG, or val/ILSVRC2012_val_*.JPEG with \
         LOC_val_solution.csv, imagenet_2012_validation_synset_labels.txt or the devkit's two files\n  way out: {way_out}",
        path = printable_path(path)
    )]
    ImageNet {
        /// The folder.
        path: PathBuf,
        /// What there is, or is missing.
        what: String,
        /// What to do about it.
        way_out: String,
    },

    /// A line of a list of labels does not have the form that it should.
    #[error(
        "{path}:{line}: {got:?}; expected {expected}\n  way out: correct the line, or fetch the file again",
        path = printable_path(path)
    )]
    LabelLine {
        /// The list.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Its beginning.
        got: String,
        /// What it should be.
        expected: String,
    },

    /// A list of labels and a folder of images do not belong together, one label an image.
    #[error(
        "{labels} labels in {list}, but {images} images in {folder}{}{}\n  way out: bring back what is missing or move away what has \
         no partner; a part of the images needs a list of just these",
        named("without a label", unlabelled), named("without an image", imageless),
        list = printable_path(list), folder = printable_path(folder)
    )]
    LabelledImages {
        /// The list.
        list: PathBuf,
        /// Labels in it.
        labels: usize,
        /// The folder.
        folder: PathBuf,
        /// Images in it.
        images: usize,
        /// Images that have no label.
        unlabelled: Vec<String>,
        /// Images that a label is for, and that are not there.
        imageless: Vec<String>,
    },

    /// The development kit's `meta.mat` cannot be read.
    #[error(
        "{path}: no MATLAB 5 file with the synsets of ImageNet's devkit: {what}\n  way out: unpack ILSVRC2012_devkit_t12.tar.gz again, \
         or put imagenet_2012_validation_synset_labels.txt or LOC_val_solution.csv beside the images' folder",
        path = printable_path(path)
    )]
    MetaMat {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },

    /// A file is larger than any of its kind.
    #[error("{path}: has more than {limit} bytes; expected {expected}", path = printable_path(path))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes that it may have.
        limit: u64,
        /// What it should be.
        expected: &'static str,
    },
}

fn within(packing: Option<&str>) -> String {
    packing.map_or_else(String::new, |packing| format!("packed by {packing}, and inside of it "))
}

fn behind(after: Option<&str>) -> String {
    after.map_or_else(String::new, |after| format!(" (after {after})"))
}

/// The first of some files that lack a partner.
fn named(what: &str, files: &[String]) -> String {
    if files.is_empty() { String::new() } else { format!("\n  {what}: {}", some(files)) }
}

/// `file` or `archive: entry`.
fn place(path: &std::path::Path, entry: Option<&str>) -> String {
    match entry {
        Some(entry) => format!("{}: {entry}", printable_path(path)),
        None => printable_path(path),
    }
}

impl DataError {
    /// For `map_err` on a call of the operating system.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> DataError {
        let path = path.into();
        move |source| DataError::Io { path, source }
    }
}
