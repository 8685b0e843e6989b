//! Which split a folder's name stands for: `Train`, `training_set` and `seg_train` are all one.

use unicode_normalization::UnicodeNormalization;

/// What the images of a folder are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Split {
    Train,
    Validation,
    Test,
}

impl Split {
    pub(crate) const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        }
    }

    /// The split that a name stands for, if its words say one split and nothing else.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let words = words(name);
        let split = only_split(&words)?;
        words.iter().all(|word| split_word(word).is_some() || is_filler(word)).then_some(split)
    }

    /// The split that one of the words says, whatever the others are: `dogs_train`. For names that are known to be of
    /// splits by other signs, since `train_station` is a class.
    pub(crate) fn within(name: &str) -> Option<Self> {
        only_split(&words(name))
    }
}

/// Whether all words of a name are such as stand beside that of a split, and say nothing: `images`, `data`.
pub(crate) fn says_nothing(name: &str) -> bool {
    let words = words(name);
    !words.is_empty() && words.iter().all(|word| is_filler(word))
}

/// One form of the names that a user would take for the same: case, spaces around and Unicode's ways to write a
/// letter do not count.
pub(crate) fn folded(name: &str) -> String {
    name.trim().nfkc().collect::<String>().to_lowercase().nfkc().collect()
}

const TRAIN: [&str; 4] = ["train", "training", "trn", "trainval"];
const VALIDATION: [&str; 6] = ["val", "valid", "validation", "validate", "validating", "dev"];
const TEST: [&str; 6] = ["test", "testing", "tests", "tst", "eval", "evaluation"];
const FILLERS: [&str; 19] = [
    "set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "picture",
    "pictures", "photo", "photos", "seg", "split", "folder", "dir", "files", "the",
];

fn split_word(word: &str) -> Option<Split> {
    let known = |word: &str| {
        let lists =
            [(&TRAIN[..], Split::Train), (&VALIDATION, Split::Validation), (&TEST, Split::Test)];
        lists.into_iter().find_map(|(list, split)| list.contains(&word).then_some(split))
    };
    // Also written together: `trainset`, `testdata`.
    known(word).or_else(|| {
        FILLERS.iter().find_map(|filler| {
            let bare = word.strip_suffix(filler).or_else(|| word.strip_prefix(filler))?;
            known(bare)
        })
    })
}

fn is_filler(word: &str) -> bool {
    word.is_empty() || FILLERS.contains(&word)
}

fn only_split(words: &[String]) -> Option<Split> {
    let mut found = words.iter().filter_map(|word| split_word(word));
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

/// Runs of letters, in lower case; a capital after a small letter starts one too (`TrainSet`), and digits do not count
/// (`train2017`).
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut small = false;
    for character in name.chars() {
        if !character.is_alphabetic() || (small && character.is_uppercase()) {
            words.push(String::new());
        }
        small = character.is_lowercase();
        if character.is_alphabetic() {
            words.last_mut().into_iter().for_each(|word| word.extend(character.to_lowercase()));
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], expected: Option<Split>) {
        for name in names {
            assert_eq!(Split::of(name), expected, "{name}");
        }
    }

    #[test]
    fn spellings() {
        let train = [
            "train",
            "TRAIN",
            "Train",
            "training",
            "Training",
            "training_set",
            "train-set",
            "trainset",
            "TrainSet",
            "train_data",
            "training data",
            "seg_train",
            "train2017",
            "trainingData",
            "images_train",
            "train (1)",
            "trainval",
        ];
        check(&train, Some(Split::Train));
        let test = [
            "test",
            "Testing",
            "test_set",
            "TESTSET",
            "seg_test",
            "test1",
            "evaluation",
            "testData",
        ];
        check(&test, Some(Split::Test));
        let validation =
            ["val", "VAL", "valid", "Validation", "validation_set", "dev", "valset", "val2014"];
        check(&validation, Some(Split::Validation));
    }

    #[test]
    fn names_of_something_else() {
        check(
            &[
                "cat",
                "a_red",
                "train_station",
                "test_tube",
                "strain",
                "contest",
                "data",
                "images",
                "trainer",
            ],
            None,
        );
        check(&["train_test", "test-vs-train", "", "2017", "Käfer", "value", "device"], None);
        assert_eq!(Split::within("dogs_train"), Some(Split::Train));
        assert_eq!(Split::within("train_vs_test"), None);
        assert!(
            says_nothing("images")
                && says_nothing("Image_Data")
                && !says_nothing("cat")
                && !says_nothing("01")
        );
    }

    #[test]
    fn names_alike() {
        for (one, other) in
            [("a_red", "A_Red"), ("K\u{e4}fer", "Ka\u{308}fer"), ("cat ", "cat"), ("ﬁsh", "fish")]
        {
            assert_eq!(folded(one), folded(other));
        }
        assert_ne!(folded("cat"), folded("cats"));
    }
}
