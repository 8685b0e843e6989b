//! What the folders of a data set stand for: splits, classes, or a folder around it all.
//!
//! Known are `SPLIT/CLASS/…/IMAGE` and `CLASS/…/IMAGE`, each with folders around. What may be read in two ways is refused
//! with the folders named, since a wrong guess moves labels or trains on test images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::DataError;
use crate::note::{Note, endings};
use crate::printable::printable_bytes;
use crate::split::{Split, folded, says_nothing};
use crate::walk::{CLASS_LIST, Found, Walk};

/// Image files with their labels and splits.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    /// The folder or archive, for messages.
    place: PathBuf,
    pub(crate) classes: Arc<[String]>,
    pub(crate) entries: Vec<Entry>,
    parts: Arc<[Part]>,
    /// Whether class folders lie at the top, without splits.
    flat: bool,
    pub(crate) notes: Vec<Note>,
}

/// One image file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Below the root, with `/` between folders; printable.
    pub(crate) path: String,
    pub(crate) label: usize,
    /// Its place in the list of files or members.
    pub(crate) number: usize,
    /// Its part of the listing.
    part: usize,
}

/// A folder of class folders.
#[derive(Debug, Clone)]
struct Part {
    /// Its own name; nothing for the data set itself.
    name: String,
    /// Its path below the root.
    folder: String,
    /// What stands before the names of its classes, `/` included: longer than `folder` where there is a folder around.
    inner: String,
    split: Option<Split>,
    /// Class folders with the number of their images.
    classes: BTreeMap<String, usize>,
    /// Folders in the place of a class, without images.
    empty: Vec<String>,
    /// Images in no class folder.
    unlabelled: usize,
    /// What else lies in it, in words.
    others: String,
}

/// What a split consists of.
pub(crate) enum Pick {
    /// These images.
    Whole(Listing),
    /// A share of these images, held out by a fixed seed.
    Cut {
        whole: Listing,
        /// The folder that is cut, for the note.
        folder: String,
    },
}

/// A folder at one level: images directly in it, and folders below it with their numbers of images.
#[derive(Debug, Default)]
struct Folder {
    direct: usize,
    below: BTreeMap<String, usize>,
}

impl Listing {
    /// Reads the layout. `asked` is the split wanted: a folder of just that name is taken for a split where nothing
    /// else tells.
    pub(crate) fn of(place: &Path, walk: &Walk, asked: Option<&str>) -> Result<Self, DataError> {
        if walk.images.is_empty() {
            let wanted = format!("any class ({})", endings(&walk.others));
            return Err(DataError::NoImages { path: place.to_owned(), wanted });
        }
        let base = wrapper(walk);
        if let Some(stray) = walk.images.iter().find(|image| in_folder(&image.path, &base)) {
            return Err(DataError::NoClass { path: place.to_owned(), entry: stray.path.clone() });
        }
        let mut notes = Vec::new();
        if !base.is_empty() {
            notes.push(Note::Wrapper { folder: base.trim_end_matches('/').to_owned() });
        }
        let (parts, flat) = parts(place, walk, &base, asked, &mut notes)?;
        let list = class_list(place, walk, &base)?;
        let classes = classes(place, &parts, list.as_ref(), &mut notes)?;
        let labels: BTreeMap<&str, usize> =
            classes.iter().enumerate().map(|(label, class)| (class.as_str(), label)).collect();
        let mut entries = Vec::with_capacity(walk.images.len());
        for Found { path, number } in &walk.images {
            let place_of = |(part, Part { inner, .. }): (usize, &Part)| {
                let (class, _) = path.strip_prefix(inner.as_str())?.split_once('/')?;
                Some((part, *labels.get(class)?))
            };
            // Images of other folders and unlabelled ones were noted, and belong to no part.
            if let Some((part, label)) = parts.iter().enumerate().find_map(place_of) {
                entries.push(Entry { path: path.clone(), label, number: *number, part });
            }
        }
        if !walk.others.is_empty() {
            notes.push(Note::LeftOut { files: walk.others.len(), endings: endings(&walk.others) });
        }
        let list = list.map(|(list, _)| list);
        notes.insert(0, Note::Classes { names: classes.clone(), list });
        let classes = classes.into();
        Ok(Listing { place: place.to_owned(), classes, entries, parts: parts.into(), flat, notes })
    }

    /// A list of images with labels of their own, in that order; there are no splits.
    pub(crate) fn of_entries(
        place: &Path,
        classes: Vec<String>,
        images: Vec<(Found, usize)>,
    ) -> Self {
        let entry = |(Found { path, number }, label)| Entry { path, label, number, part: 0 };
        Listing {
            place: place.to_owned(),
            classes: classes.into(),
            entries: images.into_iter().map(entry).collect(),
            parts: Arc::new([]),
            flat: true,
            notes: Vec::new(),
        }
    }

    pub(crate) fn get(&self, index: usize, name: &str) -> Result<&Entry, DataError> {
        let len = self.entries.len();
        self.entries.get(index).ok_or_else(|| DataError::Index {
            dataset: name.to_owned(),
            index,
            len,
        })
    }

    /// The images of one folder, by its split or its own name; the classes stay those of the whole.
    pub(crate) fn part(&self, name: &str) -> Result<Self, DataError> {
        let name = name.trim_end_matches('/');
        match self.find(name) {
            Some(index) if !self.parts[index].classes.is_empty() => Ok(self.of_parts(&[index])),
            Some(index) => Err(self.empty_split(name, index)),
            None => Err(self.no_split(name)),
        }
    }

    /// What the split `asked` consists of.
    pub(crate) fn pick(&self, asked: &str) -> Result<Pick, DataError> {
        if asked == "all" {
            return Ok(Pick::Whole(self.of_parts(&(0..self.parts.len()).collect::<Vec<_>>())));
        }
        let whole = asked == "train+validation";
        let training = matches!(Split::of(asked), Some(Split::Train | Split::Validation));
        if !whole && !training {
            return self.part(asked).map(Pick::Whole);
        }
        // A folder for validation that is there but empty is no sign to cut: what is meant to lie in it?
        let validation = self.by_split(Split::Validation);
        if let Some(index) = validation.filter(|&index| self.parts[index].classes.is_empty()) {
            return Err(self.empty_split(asked, index));
        }
        let train = if self.flat { Some(0) } else { self.by_split(Split::Train) };
        match (train, validation) {
            (Some(train), _) if self.parts[train].classes.is_empty() => {
                Err(self.empty_split(asked, train))
            }
            (Some(train), Some(validation)) if whole => {
                Ok(Pick::Whole(self.of_parts(&[train, validation])))
            }
            (_, Some(_)) if !whole => self.part(asked).map(Pick::Whole),
            (Some(train), None) => {
                let Part { folder, .. } = &self.parts[train];
                let folder =
                    if folder.is_empty() { "the whole".to_owned() } else { format!("{folder}/") };
                Ok(Pick::Cut { whole: self.of_parts(&[train]), folder })
            }
            _ => Err(self.no_split(asked)),
        }
    }

    fn by_split(&self, split: Split) -> Option<usize> {
        self.parts.iter().position(|part| part.split == Some(split))
    }

    fn find(&self, name: &str) -> Option<usize> {
        let exact = || {
            self.parts.iter().position(|part| {
                !part.name.is_empty() && [&part.name, &part.folder].contains(&&name.to_owned())
            })
        };
        Split::of(name).and_then(|split| self.by_split(split)).or_else(exact)
    }

    fn of_parts(&self, parts: &[usize]) -> Self {
        let mut found = self.clone();
        found.entries.retain(|entry| parts.contains(&entry.part));
        let mut counts = vec![0; found.classes.len()];
        found.entries.iter().for_each(|entry| counts[entry.label] += 1);
        let missing: Vec<String> = std::iter::zip(&*self.classes, counts)
            .filter(|&(_, count)| count == 0)
            .map(|(class, _)| class.clone())
            .collect();
        if !missing.is_empty() {
            let folders = parts.iter().map(|&part| match self.parts[part].folder.as_str() {
                "" => "the data set".to_owned(),
                folder => format!("{folder}/"),
            });
            let folder = folders.collect::<Vec<_>>().join(" and ");
            found.notes.push(Note::WithoutImages { folder, classes: missing });
        }
        found
    }

    fn empty_split(&self, split: &str, index: usize) -> DataError {
        let Part { folder, unlabelled, others, .. } = &self.parts[index];
        let files = match unlabelled {
            0 => others.clone(),
            _ => format!("{unlabelled} images lie in it directly, in no class folder"),
        };
        DataError::EmptySplit {
            path: self.place.clone(),
            split: split.to_owned(),
            folder: folder.clone(),
            files,
        }
    }

    fn no_split(&self, split: &str) -> DataError {
        let has = if self.flat {
            let names: Vec<String> =
                self.classes.iter().take(6).map(|class| format!("{class}/")).collect();
            let more = if self.classes.len() > 6 { ", ..." } else { "" };
            format!(
                "no folders of splits, its folders are taken for classes: {}{more}",
                names.join(", ")
            )
        } else {
            let names: Vec<String> = self
                .parts
                .iter()
                .map(|part| match part.split {
                    Some(split) => format!("{}/ ({})", part.folder, split.name()),
                    None => format!("{}/", part.folder),
                })
                .collect();
            names.join(", ")
        };
        let instead = if self.flat { "all, train or validation" } else { "one that it has" };
        DataError::NoSplit { path: self.place.clone(), split: split.to_owned(), has, instead }
    }
}

/// Whether a file lies directly in the folder that `prefix` names.
fn in_folder(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| !rest.contains('/'))
}

/// The folders directly below `prefix` that hold images.
fn folders(walk: &Walk, prefix: &str) -> BTreeMap<String, Folder> {
    let mut found = BTreeMap::<String, Folder>::new();
    for Found { path, .. } in &walk.images {
        let Some((folder, rest)) = path.strip_prefix(prefix).and_then(|rest| rest.split_once('/'))
        else {
            continue;
        };
        let folder = found.entry(folder.to_owned()).or_default();
        match rest.split_once('/') {
            None => folder.direct += 1,
            Some((below, _)) => *folder.below.entry(below.to_owned()).or_default() += 1,
        }
    }
    found
}

/// The folders directly below `prefix` that hold none.
fn empty_folders(walk: &Walk, prefix: &str, full: &BTreeMap<String, Folder>) -> Vec<String> {
    let names = walk.folders.iter().filter_map(|folder| folder.strip_prefix(prefix));
    names
        .filter(|name| !name.contains('/') && !full.contains_key(*name))
        .map(str::to_owned)
        .collect()
}

fn others_in(walk: &Walk, prefix: &str) -> String {
    endings(walk.others.iter().filter(|path| path.starts_with(prefix)))
}

/// The folder around the data set, `/` included, if there is one: it alone holds images, has none directly in it, and
/// is no split; and several folders or a split lie in it.
fn wrapper(walk: &Walk) -> String {
    let mut prefix = String::new();
    // Empty folders beside may be classes whose images are missing: then only a split tells a folder around.
    let (mut settled, mut beside) = (0, false);
    loop {
        let found = folders(walk, &prefix);
        let splits = found.iter().any(|(name, folder)| is_split(name, folder));
        let loose = walk.images.iter().any(|image| in_folder(&image.path, &prefix));
        if splits || (found.len() > 1 && !beside) {
            settled = prefix.len();
        }
        beside |= !empty_folders(walk, &prefix, &found).is_empty();
        let only = match found.first_key_value() {
            Some((name, folder)) if found.len() == 1 && folder.direct == 0 && !splits && !loose => {
                name
            }
            _ => break,
        };
        prefix += &format!("{only}/");
    }
    prefix.truncate(settled);
    prefix
}

/// Whether a folder is one of a split: by its name, and since its images lie in folders.
fn is_split(name: &str, folder: &Folder) -> bool {
    Split::of(name).is_some() && folder.direct == 0
}

/// The folders of class folders, and whether there is just one, without splits.
fn parts(
    place: &Path,
    walk: &Walk,
    base: &str,
    asked: Option<&str>,
    notes: &mut Vec<Note>,
) -> Result<(Vec<Part>, bool), DataError> {
    let found = folders(walk, base);
    let empty = empty_folders(walk, base, &found);
    let path = |name: &str| format!("{base}{name}");
    let refuse = |what: String, way_out: String| -> DataError {
        DataError::Layout { path: place.to_owned(), what, way_out }
    };
    let named = |names: &[&String]| {
        names.iter().map(|name| format!("{}/", path(name))).collect::<Vec<_>>().join(", ")
    };

    // Which folders are splits, and of which kind.
    let mut splits: BTreeMap<&String, Option<Split>> = found
        .iter()
        .filter(|(name, folder)| is_split(name, folder))
        .map(|(name, _)| (name, Split::of(name)))
        .collect();
    let deep = || found.iter().filter(|(_, folder)| folder.direct == 0);
    if splits.is_empty() {
        let within: BTreeMap<&String, Option<Split>> =
            deep().map(|(name, _)| (name, Split::within(name))).collect();
        let kinds: BTreeSet<_> = within.values().flatten().collect();
        if within.len() > 1 && within.len() == found.len() && kinds.len() == within.len() {
            splits = within;
        }
    }
    if splits.is_empty()
        && let Some(asked) = asked
        && Split::of(asked).is_none()
        && deep().any(|(name, _)| name == asked)
    {
        splits = deep().map(|(name, _)| (name, None)).collect();
    }
    if splits.is_empty() {
        // Splits one level below classes, or below one of several folders.
        for (name, folder) in &found {
            let below: Vec<String> = folder
                .below
                .keys()
                .filter(|below| Split::of(below).is_some())
                .map(|below| format!("{}/{below}/", path(name)))
                .collect();
            if !below.is_empty() && folder.direct == 0 {
                let what =
                    format!("{} lie below {}/, beside other folders", below.join(", "), path(name));
                let way_out = format!(
                    "put the images into train/CLASS/, validation/CLASS/ and test/CLASS/, or give the folder {} alone",
                    path(name)
                );
                return Err(refuse(what, way_out));
            }
        }
        // Folders that hold folders of the same names: splits by names of their own, or classes with the same parts?
        let mut owners = BTreeMap::<&String, Vec<&String>>::new();
        deep().for_each(|(name, folder)| {
            folder.below.keys().for_each(|below| owners.entry(below).or_default().push(name));
        });
        let same = owners.iter().find(|(_, owners)| owners.len() > 1);
        if let Some((below, owners)) = same
            && deep().any(|(_, folder)| folder.below.len() > 1)
        {
            let what = format!(
                "{} each hold a folder {below}/, so they may be splits or classes",
                named(owners)
            );
            let way_out = "name folders of splits train/, validation/ and test/ (or name one of them with --split); put folders of classes \
                 into a folder train/"
                .to_owned();
            return Err(refuse(what, way_out));
        }
        // Images directly in test/: of no class, or of the class `test`?
        let of_split = |name: &String| Split::of(name);
        let others = found.keys().any(|name| of_split(name).is_none());
        if let Some(name) = found
            .keys()
            .find(|name| of_split(name).is_some_and(|split| split != Split::Train || !others))
        {
            let stray = walk
                .images
                .iter()
                .find(|image| in_folder(&image.path, &format!("{}/", path(name))));
            let entry = stray.map_or_else(|| path(name), |image| image.path.clone());
            return Err(DataError::NoClass { path: place.to_owned(), entry });
        }
        let (empty_splits, empty): (Vec<_>, Vec<_>) =
            empty.into_iter().partition(|name| Split::of(name).is_some());
        let classes = found
            .iter()
            .map(|(name, folder)| {
                (name.clone(), folder.direct + folder.below.values().sum::<usize>())
            })
            .collect();
        let whole = Part {
            name: String::new(),
            folder: base.trim_end_matches('/').to_owned(),
            inner: base.to_owned(),
            split: None,
            classes,
            empty,
            unlabelled: 0,
            others: others_in(walk, base),
        };
        let mut parts = vec![whole];
        parts.extend(empty_splits.iter().map(|name| empty_part(walk, base, name)));
        note_empty(&parts, notes);
        return Ok((parts, true));
    }

    for split in Split::ALL {
        let same: Vec<&String> = splits
            .iter()
            .filter(|(_, kind)| **kind == Some(split))
            .map(|(name, _)| *name)
            .collect();
        if same.len() > 1 {
            let what = format!("{} all go by the name of {}", named(&same), split.name());
            return Err(refuse(
                what,
                format!("leave one of them, with all {} images", split.name()),
            ));
        }
    }
    let mut parts = Vec::new();
    let mut beside = Vec::new();
    for (name, folder) in &found {
        match splits.get(name) {
            Some(kind) => parts.push(split_part(place, walk, base, name, *kind)?),
            // Images of no class, as contests give them out: `test1/1.jpg`.
            None if Split::of(name).is_some() && folder.below.is_empty() => {
                parts.push(Part { unlabelled: folder.direct, ..empty_part(walk, base, name) });
            }
            None if folder.direct == 0 && asked == Some(name.as_str()) => {
                parts.push(split_part(place, walk, base, name, None)?);
            }
            None if folder.direct == 0 => beside.push(path(name)),
            None => {
                let splits: Vec<&String> = splits.keys().copied().collect();
                let what = format!(
                    "{} hold class folders, but {}/ has images directly in it",
                    named(&splits),
                    path(name)
                );
                let way_out = "put these images into a class folder of a split, SPLIT/CLASS/, or move them away".to_owned();
                return Err(refuse(what, way_out));
            }
        }
    }
    for name in &empty {
        if let Some(split) = Split::of(name)
            && !parts.iter().any(|part| part.split == Some(split))
        {
            parts.push(empty_part(walk, base, name));
        }
    }
    note_empty(&parts, notes);
    if !beside.is_empty() {
        notes.push(Note::OtherFolders { folders: beside });
    }
    let taken: Vec<(&'static str, String)> = parts
        .iter()
        .filter(|part| !part.classes.is_empty())
        .filter_map(|part| {
            part.split.map(|split| (split.name(), part.inner.trim_end_matches('/').to_owned()))
        })
        .collect();
    if taken.iter().any(|(split, folder)| split != folder) {
        notes.push(Note::Splits { folders: taken });
    }
    Ok((parts, false))
}

fn note_empty(parts: &[Part], notes: &mut Vec<Note>) {
    for Part { folder, unlabelled, others, .. } in
        parts.iter().filter(|part| part.classes.is_empty())
    {
        notes.push(match unlabelled {
            0 => Note::EmptySplit { folder: folder.clone(), files: others.clone() },
            &images => Note::Unlabelled { folder: folder.clone(), images },
        });
    }
}

/// The folder of a split, without a class.
fn empty_part(walk: &Walk, base: &str, name: &str) -> Part {
    let folder = format!("{base}{name}");
    Part {
        name: name.to_owned(),
        inner: format!("{folder}/"),
        split: Split::of(name),
        classes: BTreeMap::new(),
        empty: Vec::new(),
        unlabelled: 0,
        others: others_in(walk, &format!("{folder}/")),
        folder,
    }
}

/// The folder of a split, with its classes.
fn split_part(
    place: &Path,
    walk: &Walk,
    base: &str,
    name: &str,
    split: Option<Split>,
) -> Result<Part, DataError> {
    let mut part = Part { split, ..empty_part(walk, base, name) };
    // `training_set/training_set/CLASS`, `train/images/CLASS`: a folder around, within the split.
    let classes = loop {
        let found = folders(walk, &part.inner);
        match found.first_key_value() {
            Some((only, folder))
                if found.len() == 1
                    && folder.direct == 0
                    && ((split.is_some() && Split::of(only) == split)
                        || folded(only) == folded(name)
                        || (says_nothing(only) && folder.below.len() > 1)) =>
            {
                part.inner += &format!("{only}/");
            }
            Some((only, folder))
                if found.len() == 1
                    && folder.below.is_empty()
                    && split.is_some()
                    && Split::of(only) == split =>
            {
                return Ok(Part { unlabelled: folder.direct, ..part });
            }
            _ => break found,
        }
    };
    if let Some(stray) = walk.images.iter().find(|image| in_folder(&image.path, &part.inner)) {
        return Err(DataError::NoClass { path: place.to_owned(), entry: stray.path.clone() });
    }
    if let Some((class, _)) = classes.iter().find(|(class, folder)| is_split(class, folder)) {
        return Err(DataError::Layout {
            path: place.to_owned(),
            what: format!(
                "{}{class}/ is called like a split and lies in the split {}/",
                part.inner, part.folder
            ),
            way_out: "move it beside the other splits".to_owned(),
        });
    }
    part.empty = empty_folders(walk, &part.inner, &classes);
    part.classes = classes
        .into_iter()
        .map(|(class, folder)| (class, folder.direct + folder.below.values().sum::<usize>()))
        .collect();
    Ok(part)
}

/// Classes in the order of a list beside them, with the list's path.
fn class_list(
    place: &Path,
    walk: &Walk,
    base: &str,
) -> Result<Option<(String, Vec<String>)>, DataError> {
    let candidates = [format!("{base}{CLASS_LIST}"), CLASS_LIST.to_owned()];
    let Some((path, bytes)) = candidates
        .iter()
        .find_map(|candidate| walk.lists.iter().find(|(path, _)| path == candidate))
    else {
        return Ok(None);
    };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut classes: Vec<String> = Vec::new();
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let class = printable_bytes(line.trim_ascii());
        if classes.contains(&class) {
            let (path, line) = (place.join(path), number + 1);
            return Err(DataError::ClassList {
                path,
                line,
                expected: "this class has a line already",
            });
        }
        if !class.is_empty() {
            classes.push(class);
        }
    }
    if classes.is_empty() {
        let expected =
            "expected the name of a class folder on each line, in the order of the labels";
        return Err(DataError::ClassList { path: place.join(path), line: 1, expected });
    }
    Ok(Some((path.clone(), classes)))
}

/// The one list of classes: that of `classes.txt`, or of the training data, or of all splits. A folder in another split
/// that it does not have is an error, since taking it in would move the labels of those behind it.
fn classes(
    place: &Path,
    parts: &[Part],
    list: Option<&(String, Vec<String>)>,
    notes: &mut Vec<Note>,
) -> Result<Vec<String>, DataError> {
    let at = |part: &Part, class: &str| format!("{}{class}", part.inner);
    if let Some((list, classes)) = list {
        for part in parts {
            if let Some(class) = part.classes.keys().find(|class| !classes.contains(class)) {
                return Err(DataError::NotListed {
                    path: place.to_owned(),
                    folder: at(part, class),
                    list: list.clone(),
                });
            }
        }
        return Ok(classes.clone());
    }
    let train =
        parts.iter().find(|part| part.split == Some(Split::Train) && !part.classes.is_empty());
    let with: Vec<&Part> = match train {
        Some(train) => vec![train],
        None => parts.iter().filter(|part| !part.classes.is_empty()).collect(),
    };
    let classes: BTreeSet<&String> = with.iter().flat_map(|part| part.classes.keys()).collect();

    // Pairs that a user would take for one class: two only where one split has both.
    let mut names = BTreeMap::<String, Vec<(&Part, &String)>>::new();
    for part in parts {
        for class in part.classes.keys().chain(&part.empty) {
            names.entry(folded(class)).or_default().push((part, class));
        }
    }
    for alike in names.values() {
        let Some((one, other)) = alike
            .iter()
            .find_map(|one| alike.iter().find(|other| other.1 > one.1).map(|other| (one, other)))
        else {
            continue;
        };
        let together = parts
            .iter()
            .any(|part| part.classes.contains_key(one.1) && part.classes.contains_key(other.1));
        if !together {
            let [one, other] = [one, other].map(|(part, class)| at(part, class));
            return Err(DataError::ClassTwins { path: place.to_owned(), one, other });
        }
        notes.push(Note::Similar { one: one.1.clone(), other: other.1.clone() });
    }
    for part in parts {
        let strange = part.classes.keys().find(|class| !classes.contains(class));
        if let Some((class, train)) = strange.zip(train) {
            return Err(DataError::NoPartner {
                path: place.to_owned(),
                folder: at(part, class),
                train: train.inner.trim_end_matches('/').to_owned(),
            });
        }
        if let Some(class) = part.empty.iter().find(|class| !classes.contains(class)) {
            return Err(DataError::EmptyClass { path: place.to_owned(), folder: at(part, class) });
        }
    }
    Ok(classes.into_iter().cloned().collect())
}
