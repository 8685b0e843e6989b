//! `meta.mat` of ImageNet's development kit: which WordNet id an ILSVRC2012_ID stands for.
//!
//! A MATLAB 5 file is a header of 128 bytes and data elements, each a tag (type and size, 4 bytes each, little-endian), its bytes, and zeros up
//! to a multiple of 8; four bytes or fewer may stand in the tag itself. An element of the type `miCOMPRESSED` is a zlib stream of another one,
//! without zeros behind it. Read is the one variable wanted, a struct array `synsets` with the fields `ILSVRC2012_ID` and `WNID`; whatever
//! else there is gets passed over by its size (The MathWorks: MAT-File Format, "Level 5 MAT-File Format").

use std::collections::BTreeMap;
use std::io::Read;

use flate2::bufread::ZlibDecoder;

use super::is_wnid;

/// Bytes that all variables of the file may have, unpacked. ImageNet's own has less than 4 MiB.
const UNPACKED_MAX: usize = 64 << 20;

/// Elements that the struct array may have (ImageNet's: 1,860), and fields (8).
const SYNSETS_MAX: usize = 100_000;
const FIELDS_MAX: usize = 64;

const HEADER: usize = 128;

/// Types of data elements.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const SINGLE: u32 = 7;
const DOUBLE: u32 = 9;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
const UTF8: u32 = 16;
const UTF16: u32 = 17;

/// Classes of arrays: structs, characters, and the numbers from `double` to `uint32`.
const STRUCT: u8 = 2;
const CHAR: u8 = 4;
const NUMBERS: std::ops::RangeInclusive<u8> = 6..=13;

/// The WordNet ids by ILSVRC2012_ID; the error says what is wrong with the bytes.
pub(super) fn wnids(bytes: &[u8]) -> Result<BTreeMap<u32, String>, String> {
    match bytes.get(..HEADER).map(|header| &header[HEADER - 4..]) {
        None => return Err(format!("{} bytes are too few for its header", bytes.len())),
        Some([0, 1, b'I', b'M']) => {}
        Some([_, _, b'M', b'I']) => return Err("its bytes are in big-endian order".to_owned()),
        Some([0, 2, b'I', b'M']) => return Err("it is of version 7.3, which is HDF5".to_owned()),
        Some(_) => return Err("it does not start with the header of one".to_owned()),
    }
    let mut variables = Elements(&bytes[HEADER..]);
    let mut left = UNPACKED_MAX;
    while !variables.is_empty() {
        let variable = variables.next()?;
        let unpacked;
        let variable = match variable.kind {
            COMPRESSED => {
                unpacked = inflate(variable.data, left)?;
                left -= unpacked.len();
                Elements(&unpacked).next()?
            }
            _ => variable,
        };
        if variable.kind != MATRIX {
            continue;
        }
        let array = Array::of(variable.data)?;
        if array.name == b"synsets" {
            return synsets(array);
        }
    }
    Err("it holds no variable `synsets`".to_owned())
}

fn inflate(data: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    let mut decoder = ZlibDecoder::new(data).take(limit as u64 + 1);
    decoder
        .read_to_end(&mut unpacked)
        .map_err(|error| format!("a compressed variable cannot be unpacked ({error})"))?;
    if unpacked.len() > limit {
        return Err(format!("its variables have more than {} MiB", UNPACKED_MAX >> 20));
    }
    Ok(unpacked)
}

/// Data elements, one behind the other.
struct Elements<'a>(&'a [u8]);

struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

impl<'a> Elements<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn next(&mut self) -> Result<Element<'a>, String> {
        let Some((tag, behind)) = self.0.split_first_chunk::<8>() else {
            return Err("it is cut off within a tag".to_owned());
        };
        let [a, b, c, d, ..] = *tag;
        let first = u32::from_le_bytes([a, b, c, d]);
        let small = (first >> 16) as usize;
        if small > 0 {
            let Some(data) = self.0[4..8].get(..small) else {
                return Err(format!("a tag holds {small} bytes, and has room for 4"));
            };
            self.0 = behind;
            return Ok(Element { kind: first & 0xffff, data });
        }
        let [.., a, b, c, d] = *tag;
        let size = u32::from_le_bytes([a, b, c, d]) as usize;
        let Some((data, behind)) = behind.split_at_checked(size) else {
            return Err(format!(
                "it is cut off: an element has {size} bytes, and {} are left",
                behind.len()
            ));
        };
        let zeros = if first == COMPRESSED { 0 } else { size.next_multiple_of(8) - size };
        // The last ones may be missing at the end of a file.
        self.0 = behind.get(zeros..).unwrap_or_default();
        Ok(Element { kind: first, data })
    }

    /// The next element, which has to be of this type.
    fn of(&mut self, kind: u32, what: &str) -> Result<&'a [u8], String> {
        let element = self.next()?;
        if element.kind == kind {
            Ok(element.data)
        } else {
            Err(format!("the {what} are of the type {}, expected {kind}", element.kind))
        }
    }
}

/// A variable, or an element of a struct array.
struct Array<'a> {
    class: u8,
    /// Product of its dimensions.
    len: usize,
    name: &'a [u8],
    /// What follows, by the class.
    content: Elements<'a>,
}

impl<'a> Array<'a> {
    fn of(data: &'a [u8]) -> Result<Self, String> {
        let mut content = Elements(data);
        let class =
            *content.of(UINT32, "flags of an array")?.first().ok_or("an array has no flags")?;
        let dimensions = content.of(INT32, "dimensions of an array")?.chunks(4);
        let len = dimensions
            .map(|length| <[u8; 4]>::try_from(length).ok().map(u32::from_le_bytes))
            .try_fold(1_usize, |len, length| len.checked_mul(length? as usize))
            .ok_or("the dimensions of an array make no sense")?;
        let name = content.of(INT8, "letters of an array's name")?;
        Ok(Array { class, len, name, content })
    }

    /// The one number that an array holds. MATLAB writes a `double` that is a small whole number in fewer bytes.
    fn number(mut self) -> Option<f64> {
        let Element { kind, data } = self.content.next().ok()?;
        let number = match (kind, data) {
            _ if !NUMBERS.contains(&self.class) => return None,
            (INT8, &[a]) => f64::from(a as i8),
            (UINT8, &[a]) => f64::from(a),
            (INT16, &[a, b]) => f64::from(i16::from_le_bytes([a, b])),
            (UINT16, &[a, b]) => f64::from(u16::from_le_bytes([a, b])),
            (INT32, &[a, b, c, d]) => f64::from(i32::from_le_bytes([a, b, c, d])),
            (UINT32, &[a, b, c, d]) => f64::from(u32::from_le_bytes([a, b, c, d])),
            (SINGLE, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
            (DOUBLE, bytes) => f64::from_le_bytes(bytes.try_into().ok()?),
            _ => return None,
        };
        Some(number)
    }

    /// The WordNet id that an array of characters spells.
    fn wnid(mut self) -> Option<String> {
        let Element { kind, data } = self.content.next().ok()?;
        let bytes = match kind {
            _ if self.class != CHAR => return None,
            INT8 | UINT8 | UTF8 => data.to_vec(),
            UINT16 | UTF16 => {
                // Its characters are all of ASCII, so the second byte of each is 0.
                let (pairs, rest) = data.as_chunks::<2>();
                let plain = rest.is_empty() && pairs.iter().all(|&[_, high]| high == 0);
                plain.then(|| pairs.iter().map(|&[low, _]| low).collect())?
            }
            _ => return None,
        };
        String::from_utf8(bytes).ok().filter(|word| is_wnid(word))
    }
}

fn synsets(array: Array<'_>) -> Result<BTreeMap<u32, String>, String> {
    let Array { class, len, mut content, .. } = array;
    if class != STRUCT || len > SYNSETS_MAX {
        return Err(format!("`synsets` is no struct array of at most {SYNSETS_MAX} elements"));
    }
    let width = content.of(INT32, "bytes of a field's name")?;
    let width = <[u8; 4]>::try_from(width).map_or(0, u32::from_le_bytes) as usize;
    let names = content.of(INT8, "names of the fields")?;
    if width == 0 || !names.len().is_multiple_of(width) || names.len() / width > FIELDS_MAX {
        return Err("the names of the fields of `synsets` make no sense".to_owned());
    }
    // Each name fills up its place with zeros.
    let fields: Vec<&[u8]> =
        names.chunks(width).filter_map(|name| name.split(|&byte| byte == 0).next()).collect();
    let field = |name: &str| {
        let found = fields.iter().position(|field| *field == name.as_bytes());
        found.ok_or_else(|| format!("`synsets` has no field {name}"))
    };
    let (id_at, wnid_at) = (field("ILSVRC2012_ID")?, field("WNID")?);
    let mut found = BTreeMap::new();
    for place in 1..=len {
        let wrong =
            |field: &str, expected: &str| format!("{field} of synset {place} is not {expected}");
        let (mut id, mut wnid) = (None, None);
        for at in 0..fields.len() {
            let data = content.of(MATRIX, "fields of a synset")?;
            if at == id_at {
                id = Array::of(data)?
                    .number()
                    .filter(|id| (1.0..=1e6).contains(id) && id.fract() == 0.0);
            } else if at == wnid_at {
                wnid = Array::of(data)?.wnid();
            }
        }
        let id = id.ok_or_else(|| wrong("ILSVRC2012_ID", "a whole number from 1"))? as u32;
        let wnid = wnid.ok_or_else(|| wrong("WNID", "a WordNet id"))?;
        if found.insert(id, wnid).is_some() {
            return Err(format!("two synsets have the ILSVRC2012_ID {id}"));
        }
    }
    Ok(found)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    /// A data element, in its tag where it is small.
    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = match data.len() {
            size @ 1..=4 => (kind | (size as u32) << 16).to_le_bytes().to_vec(),
            size => [kind.to_le_bytes(), (size as u32).to_le_bytes()].concat(),
        };
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn array(class: u8, dimensions: [u32; 2], name: &str, content: &[u8]) -> Vec<u8> {
        let head = [
            element(UINT32, &[class, 0, 0, 0, 0, 0, 0, 0]),
            element(INT32, &dimensions.map(u32::to_le_bytes).concat()),
            element(INT8, name.as_bytes()),
        ];
        element(MATRIX, &[&head.concat(), content].concat())
    }

    fn double(value: u32) -> Vec<u8> {
        // As MATLAB does: in as few bytes as hold it.
        let content = match value {
            0..=255 => element(UINT8, &[value as u8]),
            256..=65535 => element(UINT16, &(value as u16).to_le_bytes()),
            _ => element(DOUBLE, &f64::from(value).to_le_bytes()),
        };
        array(6, [1, 1], "", &content)
    }

    fn word(text: &str) -> Vec<u8> {
        let content: Vec<u8> = text.bytes().flat_map(|letter| [letter, 0]).collect();
        array(CHAR, [1, text.len() as u32], "", &element(UINT16, &content))
    }

    fn header() -> Vec<u8> {
        let mut bytes = b"MATLAB 5.0 MAT-file, made for a test".to_vec();
        bytes.resize(HEADER - 4, b' ');
        bytes.extend([0, 1, b'I', b'M']);
        bytes
    }

    fn compressed(variable: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(variable).unwrap();
        let packed = encoder.finish().unwrap();
        [&COMPRESSED.to_le_bytes(), &(packed.len() as u32).to_le_bytes(), &packed[..]].concat()
    }

    /// A `meta.mat` with these synsets, fields in the order of ImageNet's, behind another variable.
    pub(crate) fn mat(synsets: &[(u32, &str)], packed: bool) -> Vec<u8> {
        const WIDTH: u32 = 18;
        let fields = ["ILSVRC2012_ID", "WNID", "words", "num_children", "children"];
        let mut names = Vec::new();
        for (n, field) in fields.iter().enumerate() {
            names.extend(field.as_bytes());
            names.resize((n + 1) * WIDTH as usize, 0);
        }
        let mut content = element(INT32, &WIDTH.to_le_bytes());
        content.extend(element(INT8, &names));
        for (id, wnid) in synsets {
            content.extend(double(*id));
            content.extend(word(wnid));
            content.extend(word("tench, Tinca tinca"));
            content.extend(double(0));
            content.extend(array(6, [1, 0], "", &element(DOUBLE, &[])));
        }
        let variables = [
            array(6, [1, 1], "other", &element(DOUBLE, &1.5_f64.to_le_bytes())),
            array(STRUCT, [synsets.len() as u32, 1], "synsets", &content),
        ];
        let each =
            |variable: &Vec<u8>| if packed { compressed(variable) } else { variable.clone() };
        header().into_iter().chain(variables.iter().flat_map(each)).collect()
    }

    const SYNSETS: [(u32, &str); 4] =
        [(1, "n02119789"), (2, "n02100735"), (300, "n01440764"), (70_000, "n00001740")];

    #[test]
    fn both_packings() {
        let expected = BTreeMap::from(SYNSETS.map(|(id, wnid)| (id, wnid.to_owned())));
        assert_eq!(wnids(&mat(&SYNSETS, false)).unwrap(), expected);
        assert_eq!(wnids(&mat(&SYNSETS, true)).unwrap(), expected);
        assert_eq!(wnids(&mat(&[], true)).unwrap(), BTreeMap::new());
    }

    /// Written by SciPy 1.17.1, `savemat(…, do_compression=True)`: `other`, three doubles, and `synsets`, 4×1 with ImageNet's eight fields.
    #[test]
    fn a_file_of_another_writer() {
        let hex = include_str!("meta-by-scipy.hex");
        let digits: String = hex.split_whitespace().collect();
        let bytes: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        let found: Vec<(u32, String)> = wnids(&bytes).unwrap().into_iter().collect();
        let expected = [(1, "n02119789"), (2, "n02100735"), (3, "n01440764"), (1001, "n00001740")];
        assert_eq!(found, expected.map(|(id, wnid)| (id, wnid.to_owned())));
    }

    #[track_caller]
    fn check(bytes: &[u8], words: &str) {
        let error = wnids(bytes).unwrap_err();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        check(b"", "0 bytes are too few");
        check(&[b'x'; 200], "does not start with the header");
        let with = |at: usize, bytes: &[u8]| {
            let mut all = mat(&SYNSETS, false);
            all[at..at + bytes.len()].copy_from_slice(bytes);
            all
        };
        check(&with(124, &[1, 0, b'M', b'I']), "big-endian");
        check(&with(124, &[0, 2, b'I', b'M']), "HDF5");
        check(&header(), "no variable `synsets`");
        check(
            &mat(&[(1, "n02119789"), (1, "n02100735")], true),
            "two synsets have the ILSVRC2012_ID 1",
        );
        check(
            &mat(&[(0, "n02119789")], false),
            "ILSVRC2012_ID of synset 1 is not a whole number from 1",
        );
        check(
            &mat(&[(1, "n02119789"), (2, "tench")], false),
            "WNID of synset 2 is not a WordNet id",
        );
        let plain = |variable: Vec<u8>| [header(), variable].concat();
        check(&plain(array(6, [1, 1], "synsets", &[])), "no struct array");
        let many = array(STRUCT, [1 << 20, 1], "synsets", &[]);
        check(&plain(many), "at most 100000 elements");
        let fields =
            [element(INT32, &8_u32.to_le_bytes()), element(INT8, b"WNID\0\0\0\0")].concat();
        check(&plain(array(STRUCT, [1, 1], "synsets", &fields)), "no field ILSVRC2012_ID");
        check(&plain(array(STRUCT, [u32::MAX, u32::MAX], "synsets", &[])), "at most 100000");
    }

    #[test]
    fn what_unpacks_to_too_much_is_refused() {
        let zeros = vec![0; UNPACKED_MAX / 2 - 1000];
        let other = compressed(&array(6, [1, 1], "other", &element(DOUBLE, &zeros)));
        let twice = [header(), other.clone(), other.clone()].concat();
        check(&twice, "no variable `synsets`");
        check(&[twice, other].concat(), "more than 64 MiB");
    }

    #[test]
    fn every_cut_is_an_error_and_no_change_of_bytes_panics() {
        for packed in [false, true] {
            let good = mat(&SYNSETS, packed);
            for cut in 0..good.len() {
                assert!(wnids(&good[..cut]).is_err(), "cut at {cut}");
            }
            for at in 0..good.len() {
                for value in
                    [0, 1, 2, 4, 14, 15, 0x40, 0x7f, 0x80, 0xff, good[at] ^ 1, good[at] ^ 0x10]
                {
                    let mut bytes = good.clone();
                    bytes[at] = value;
                    let _ = wnids(&bytes);
                    // Several at once: a size and what it is of.
                    let other = (at * 7 + usize::from(value)) % bytes.len();
                    bytes[other] ^= value;
                    let _ = wnids(&bytes);
                }
            }
            // A stream of other content within a sound file.
            for seed in 0..2_000_u32 {
                let mut bytes = mat(&SYNSETS, false)[HEADER..].to_vec();
                for n in 0..4 {
                    let draw = (seed * 4 + n).wrapping_mul(2_654_435_761);
                    let at = (draw >> 8) as usize % bytes.len();
                    bytes[at] = draw as u8;
                }
                let _ = wnids(&[header(), compressed(&bytes)].concat());
            }
        }
    }
}
