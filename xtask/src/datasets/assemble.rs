//! Weights that were published as one raw file for each array, put together to the one file that the manifest lists.
//!
//! The result is the listed file byte for byte, or nothing is kept: its SHA-256 decides.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::download::{self, Patience};
use crate::manifest::{Assembly, DataFile, Download, Layer, stays_below};
use crate::sums::Check;

/// Bytes of a float32.
const FLOAT: usize = 4;

/// Downloads the pieces of `file` that are not there yet, and writes it to `target`.
///
/// # Errors
/// If a piece cannot be downloaded, or what they make is not the listed file.
pub(crate) fn fetch(
    file: &DataFile,
    assembly: &Assembly,
    target: &Path,
    patience: Patience,
) -> anyhow::Result<()> {
    let pieces = target.with_added_extension("pieces");
    for layer in &assembly.layers {
        for (kind, bytes) in [("filter", layer.weight()?), ("bias", layer.bias()?)] {
            let path = format!("{}_{kind}.bin", layer.name);
            stays_below(&path)?;
            let piece = pieces.join(&path);
            if piece.metadata().is_ok_and(|found| found.len() == bytes as u64) {
                continue;
            }
            let download = Download {
                urls: vec![format!("{}{path}", assembly.base)],
                path: format!("{} ({path})", file.path),
                bytes: Some(bytes as u64),
                piece: true,
                ..Download::default()
            };
            download::fetch(&download, &piece, patience)?;
        }
    }
    let part = target.with_added_extension("part");
    write(assembly, &pieces, &part)?;
    let check = file.expected().check(&part, target)?;
    if let Check::Wrong(why) = check {
        // Which of the pieces is wrong cannot be known.
        fs::remove_file(&part)?;
        fs::remove_dir_all(&pieces)?;
        anyhow::bail!(
            "{}: what {} has now does not make the file that the manifest lists: {why}",
            file.path,
            assembly.base
        );
    }
    fs::rename(&part, target)
        .with_context(|| format!("cannot move {} into place", part.display()))?;
    fs::remove_dir_all(&pieces).with_context(|| format!("cannot remove {}", pieces.display()))
}

impl Layer {
    /// Bytes of its weight.
    fn weight(&self) -> anyhow::Result<usize> {
        let count = self.shape.iter().try_fold(FLOAT, |bytes, &n| bytes.checked_mul(n));
        count
            .filter(|&bytes| bytes > 0 && matches!(self.shape.len(), 2 | 4))
            .with_context(|| format!("the manifest gives {} the shape {:?}", self.name, self.shape))
    }

    /// Bytes of its bias.
    fn bias(&self) -> anyhow::Result<usize> {
        self.weight()?;
        Ok(self.shape[0] * FLOAT)
    }
}

/// Writes the safetensors file: the length of the header, the header as JSON, padded to eight bytes, and the arrays.
fn write(assembly: &Assembly, pieces: &Path, to: &Path) -> anyhow::Result<()> {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let pairs: Vec<String> = (assembly.metadata.iter())
        .map(|(name, value)| format!("{}:{}", text(name), text(value)))
        .collect();
    let mut header = format!("{{\"__metadata__\":{{{}}}", pairs.join(","));
    let mut start = 0;
    for layer in &assembly.layers {
        let arrays = [
            ("weight", &layer.shape[..], layer.weight()?),
            ("bias", &layer.shape[..1], layer.bias()?),
        ];
        for (kind, shape, bytes) in arrays {
            let name = text(&format!("{}.{kind}", layer.name));
            let shape = shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            let end = start + bytes;
            header += &format!(
                ",{name}:{{\"dtype\":\"F32\",\"shape\":[{shape}],\"data_offsets\":[{start},{end}]}}"
            );
            start = end;
        }
    }
    header.push('}');
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());

    let cannot = || format!("cannot write {}: is the disk full?", to.display());
    let mut out = BufWriter::new(File::create(to).with_context(cannot)?);
    out.write_all(&(header.len() as u64).to_le_bytes()).with_context(cannot)?;
    out.write_all(header.as_bytes()).with_context(cannot)?;
    for layer in &assembly.layers {
        let read = |kind: &str, bytes: usize| {
            let path = pieces.join(format!("{}_{kind}.bin", layer.name));
            let raw = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            ensure!(raw.len() == bytes, "{} has {} bytes, not {bytes}", path.display(), raw.len());
            Ok(raw)
        };
        let weight = channels_second(&read("filter", layer.weight()?)?, &layer.shape);
        out.write_all(&weight).with_context(cannot)?;
        out.write_all(&read("bias", layer.bias()?)?).with_context(cannot)?;
    }
    out.into_inner().map_err(|error| error.into_error()).with_context(cannot)?.sync_all()?;
    Ok(())
}

/// From the order of the axes out, height, width, in to out, in, height, width, which is `shape`; a matrix stays.
fn channels_second(raw: &[u8], shape: &[usize]) -> Vec<u8> {
    let &[out, channels, height, width] = shape else { return raw.to_vec() };
    let mut moved = Vec::with_capacity(raw.len());
    for o in 0..out {
        for c in 0..channels {
            for place in 0..height * width {
                let at = ((o * height * width + place) * channels + c) * FLOAT;
                moved.extend_from_slice(&raw[at..at + FLOAT]);
            }
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::loopback::{Server, curl_is_here};
    use crate::manifest;

    /// The raw files of a published safetensors file of the data folder, made anew by the opposite way.
    fn take_apart(assembly: &Assembly, published: &[u8], server: &Server) {
        let length = u64::from_le_bytes(published[..8].try_into().unwrap()) as usize;
        let mut rest = &published[8 + length..];
        for layer in &assembly.layers {
            let (weight, after) = rest.split_at(layer.weight().unwrap());
            let (bias, after) = after.split_at(layer.bias().unwrap());
            rest = after;
            // Of one file with the axes out, in, height x width, one with the axes out, height x width, in.
            let raw = match layer.shape[..] {
                [out, channels, height, width] => {
                    channels_second(weight, &[out, height * width, channels, 1])
                }
                _ => weight.to_vec(),
            };
            server.file(&format!("{}_filter.bin", layer.name), raw);
            server.file(&format!("{}_bias.bin", layer.name), bias);
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn published_weights_come_out_byte_for_byte() {
        let Some(data) = std::env::var_os("POLYAD_DATA").map(PathBuf::from) else {
            println!("skipped: POLYAD_DATA not set");
            return;
        };
        if !curl_is_here() {
            return;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let manifest = manifest::named(root, "pretrained").unwrap();
        for name in ["squeezenet1_1-caffe", "googlenet-caffe"] {
            let file = manifest.weights(name).unwrap();
            let Ok(published) = fs::read(data.join("pretrained").join(&file.path)) else {
                println!("skipped: no {} in POLYAD_DATA", file.path);
                continue;
            };
            let server = Server::start();
            let listed = file.assemble.as_ref().unwrap();
            take_apart(listed, &published, &server);
            let assembly = Assembly { base: server.base.clone(), ..listed.clone() };
            let folder = tempfile::tempdir().unwrap();
            let target = folder.path().join(&file.path);
            fetch(file, &assembly, &target, Patience::default()).unwrap();
            assert!(fs::read(&target).unwrap() == published, "{name}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        }
    }

    #[test]
    fn a_piece_that_is_another_leaves_nothing() {
        if !curl_is_here() {
            return;
        }
        let server = Server::start();
        let text = format!(
            "path = 'x.safetensors'\nsha256 = '{}'\n[assemble]\nbase = '{}'\nmetadata = [['a', 'b']]\n\
             layers = [{{ name = 'conv', shape = [1, 2, 1, 2] }}]",
            "0".repeat(64),
            server.base
        );
        let file: DataFile = toml::from_str(&text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x.safetensors");
        let get = || fetch(&file, file.assemble.as_ref().unwrap(), &target, Patience::default());
        let error = get().unwrap_err().to_string();
        assert!(error.contains("conv_filter.bin") && error.contains("404"), "{error}");
        server.file("conv_filter.bin", (0..16).collect::<Vec<u8>>());
        server.file("conv_bias.bin", [9; 4]);
        let error = get().unwrap_err().to_string();
        assert!(error.contains("does not make the file") && error.contains("SHA-256"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(
            channels_second(&(0..16).collect::<Vec<u8>>(), &[1, 2, 1, 2]),
            [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]
        );
    }
}
