//! The format since PyTorch 1.6: a zip archive with a folder in it, and there `data.pkl`, `data/0`, `data/1`, …, `version` and `byteorder`.

use super::{StateDict, arrays, unpickled};
use crate::archive::Archive;
use crate::error::CheckpointError;
use crate::limits::Budget;

pub(super) fn read(
    bytes: &[u8],
    archive: &Archive<'_>,
    key: Option<&str>,
    file: &str,
) -> Result<StateDict, CheckpointError> {
    if crate::program::is_program(archive) {
        return Err(CheckpointError::ExportedProgram);
    }
    let Some(folder) = folder(archive) else {
        return Err(CheckpointError::Kind { kind: cp_net::FileKind::of(bytes) });
    };
    let code = format!("{folder}code/");
    if archive.has(&format!("{folder}constants.pkl"))
        || archive.names().any(|name| name.starts_with(&code))
    {
        return Err(CheckpointError::TorchScript { file: file.into() });
    }
    let budget = Budget::of(bytes.len());
    check_order(archive, folder, &budget)?;
    let (heap, root, _) =
        unpickled(&archive.read(&format!("{folder}data.pkl"), &budget)?, "data.pkl")?;
    arrays(&heap, &root, key, file, &budget, |storage| {
        Ok(archive.read(&format!("{folder}data/{}", storage.key), &budget)?)
    })
}

/// Refuses numbers the other way round.
pub(crate) fn check_order(
    archive: &Archive<'_>,
    folder: &str,
    budget: &Budget,
) -> Result<(), CheckpointError> {
    let order = format!("{folder}byteorder");
    // Files from before 2.1 do not say it, and are little-endian on every machine that PyTorch supported.
    if archive.has(&order) && archive.read(&order, budget)?.as_ref() != b"little" {
        return Err(CheckpointError::BigEndian);
    }
    Ok(())
}

/// The folder of `data.pkl`, with its slash; of several the outermost, then the first by name.
fn folder<'a>(archive: &Archive<'a>) -> Option<&'a str> {
    archive
        .names()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|folder| folder.is_empty() || folder.ends_with('/'))
        .min_by_key(|folder| folder.matches('/').count())
}
