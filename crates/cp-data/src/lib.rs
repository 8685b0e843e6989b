//! Image data sets for Polyad: readers, checksums, batches, augmentation. No libtorch.
//!
//! [`open`] gives a [`Dataset`] by name and split; a [`Loader`] turns it into [`Batch`]es, decoding on worker
//! threads ahead of use. Images are `u8` arrays of shape `[channels, height, width]`, grey (1 channel) or RGB (3);
//! turning them into normalized floats is the business of the training crate.
//!
//! # Conventions
//!
//! - **Nothing is skipped and nothing is made up.** A damaged file, a label out of range or a missing folder is an
//!   error that names the file; no data set falls back to another one. Only where a publisher's own archive, right by its
//!   sum, holds images that cannot be decoded, these are left out, each by name in a [`Note`].
//! - **Checked once, while read.** Files that a [`Manifest`] lists are compared with its SHA-256 as they are loaded.
//! - **Seeded.** The order of the examples and every augmentation depend on the seed, the epoch and the example's
//!   index alone, so batches are the same for any number of worker threads.
//!
//! ```
//! use std::sync::Arc;
//! use cp_data::{Characters, Loader, LoaderConfig, Order};
//!
//! let characters = Arc::new(Characters::generate(72, 1));
//! let config = LoaderConfig { batch_size: 32, order: Order::Shuffled { seed: 7, epoch: 0 }, ..Default::default() };
//! let mut sizes = Vec::new();
//! for batch in Loader::new(characters, config)? {
//!     let batch = batch?;
//!     assert_eq!(batch.pixels.shape()[1..], [1, 24, 24]);
//!     sizes.push(batch.labels.len());
//! }
//! assert_eq!(sizes, [32, 32, 8]);
//! # Ok::<(), cp_data::DataError>(())
//! ```

mod characters;
mod checksum;
pub mod cifar;
mod data_dir;
mod dataset;
mod decode;
mod error;
mod features;
mod identity;
pub mod idx;
mod image_folder;
mod image_tar;
mod image_zip;
mod imagenet;
mod in_use;
mod kept;
mod kind;
mod layout;
mod loader;
mod manifest;
mod note;
mod open;
mod pictures;
mod printable;
mod published;
mod same_tile;
mod seed;
mod split;
mod transform;
mod unpack;
mod walk;
mod weights;

pub use characters::{Characters, Part};
pub use checksum::sha256_file;
pub use data_dir::{DATA_VARIABLE, DataDir, Origin};
pub use dataset::{Dataset, Images, Source, Subset, class_counts, split_validation};
pub use error::DataError;
pub use features::Features;
pub use identity::{EntryId, Identified, Identity, Overlap, shared_entries};
pub use image_folder::ImageFolder;
pub use image_tar::ImageTar;
pub use image_zip::ImageZip;
pub use kind::FileKind;
pub use loader::{Batch, Loader, LoaderConfig, Order};
pub use manifest::{Assembly, Download, ImageChanges, LayerShape, Manifest, ManifestFile, Packing};
pub use note::Note;
pub use open::{augmentation, dataset_names, open, open_as};
pub use pictures::Pictures;
pub use printable::{printable, printable_path};
pub use same_tile::tiles;
pub use transform::{Crop, Resize, Transform};
pub use weights::{pretrained, pretrained_file, pretrained_of, trained_on};
