//! PyTorch's files without PyTorch: state dicts as arrays ([`state_dict`]), exported programs as networks ([`exported_program`]).
//!
//! ```
//! use cp_pytorch::{StateDictOptions, state_dict};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("resnet18.pth");
//! # let (long, layout): (&[u8], &[u8]) = (b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"K\0K\x02\x85K\x01\x85\x89N");
//! # let storage: &[u8] = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0aX\x03\0\0\0cpuK\x02NtQ";
//! # std::fs::write(&path, [
//! #     b"\x80\x02", long, b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x02}X\x07\0\0\0fc.biasctorch._utils\n_rebuild_tensor_v2\n", storage, layout,
//! #     b"tRs.\x80\x02]X\x01\0\0\0aa.\x02\0\0\0\0\0\0\0", &1_f32.to_le_bytes(), &2_f32.to_le_bytes()].concat())?;
//! // What torch.save(model.state_dict(), "resnet18.pth") or torch.save({"model": model.state_dict(), …}, …) wrote.
//! let weights = state_dict(&path, &StateDictOptions::default())?;
//! assert_eq!(weights.arrays()["fc.bias"].as_slice(), Some(&[1.0, 2.0][..]));
//! // let network = weights.into_network(cp_net::arch::by_name("resnet18")?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is read
//!
//! | file | written by | |
//! |---|---|---|
//! | `.pth`, `.pt`, `.th`, `.pth.tar` | `torch.save(model.state_dict(), …)`, since 1.6 a zip archive, before a row of pickles | [`state_dict`] |
//! | the same | a training program: a dict with a state dict among its entries | [`state_dict`], with [`key`](StateDictOptions::key) where several are |
//! | `.pt2` | `torch.export.save(torch.export.export(model.eval(), …), …)` | [`exported_program`] |
//!
//! What a file is, its contents say, not its name. TorchScript archives and whole modules (`torch.save(model, …)`) are programs in Python; they
//! are refused with the line of Python that writes their weights.
//!
//! # Nothing runs
//! A pickle is a program that may name any function. Here its opcodes work on values of our own, and the few names that have a meaning
//! (ordered dicts, tensors, parameters, storages, sizes, types) are a list in `pickle/globals.rs`. Everything else (an optimizer's state,
//! `argparse.Namespace`, scalars of NumPy) becomes an opaque object, and only where the weights themselves are one, that is an error.
//!
//! Sizes, offsets and strides are checked before anything is allocated, and what a file may take in memory is a multiple of its own
//! size: archives that inflate without end and views of one number a billion times are refused.

mod archive;
mod checkpoint;
mod dtype;
mod error;
mod limits;
mod pickle;
mod program;
mod tensor;

pub use archive::ArchiveError;
pub use checkpoint::{StateDict, StateDictOptions, state_dict};
pub use error::{CheckpointError, PyTorchError};
pub use limits::OverBudget;
pub use pickle::{PickleError, PickleProblem};
pub use program::{ProgramError, exported_program};
pub use tensor::TensorError;
