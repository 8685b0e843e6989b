//! [`Origin`]: whether validation images are apart from those that the dense network was trained on.

/// What is known of the validation images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The weights have not seen them.
    Apart,
    /// The weights were trained on some of them: their accuracy there flatters, and cannot choose an epoch.
    Seen,
    /// Nothing is known of the weights.
    Unknown,
}

impl Origin {
    /// Of `validation`, a split of `dataset`, and weights `trained_on` splits of data sets, written `DATASET/SPLIT`.
    pub fn of(trained_on: Option<&[String]>, dataset: &str, validation: &str) -> Self {
        let Some(trained_on) = trained_on else { return Self::Unknown };
        // Sets with a part held out are made of the same images.
        let family = |name: &str| name.strip_suffix("-holdout").unwrap_or(name).to_owned();
        let seen = trained_on.iter().any(|one| {
            let (set, split) = one.split_once('/').unwrap_or((one, ""));
            let apart = set == dataset && split == "train" && validation == "validation";
            family(set) == family(dataset) && !apart
        });
        if seen { Self::Seen } else { Self::Apart }
    }

    /// In one line, for the user.
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::Apart => None,
            Self::Seen => Some(
                "the weights were trained on the validation images too: their accuracy there flatters, and the last epoch is kept",
            ),
            Self::Unknown => Some(
                "what the weights were trained on is not known; if the validation images were among it, their accuracy flatters",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen() {
        let check = |trained: Option<&str>, dataset: &str, expected: Origin| {
            let trained: Option<Vec<String>> = trained.map(|one| vec![one.into()]);
            assert_eq!(Origin::of(trained.as_deref(), dataset, "validation"), expected);
        };
        check(None, "cifar10", Origin::Unknown);
        check(Some("cifar10/train+validation"), "cifar10", Origin::Seen);
        check(Some("cifar10/train+validation"), "cifar10-holdout", Origin::Seen);
        check(Some("cifar10-holdout/train"), "cifar10-holdout", Origin::Apart);
        check(Some("cifar10-holdout/train"), "cifar10", Origin::Seen);
        check(Some("imagenet/train"), "cifar10", Origin::Apart);
    }
}
