//! NumPy's files: arrays of either float type in (`.npy`), factors in and out (`.npz`).

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Cursor, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use cp_core::{CpTensor, TuckerTensor};
use cp_net::FileKind;
use cp_ort::Tensor;
use half::f16;
use ndarray::{ArrayD, Ix1, Ix2, IxDyn};
use ndarray_npy::{
    NpzReader, NpzWriter, ReadDataError, ReadNpyError, ReadNpyExt, ReadNpzError, ReadableElement,
    WritableElement,
};
use py_literal::Value;

/// An array as a file held it.
pub(crate) enum Floats {
    /// Single precision.
    F32(ArrayD<f32>),
    /// Double precision.
    F64(ArrayD<f64>),
}

/// Reads the array of any order in the `.npy` file `path`, in C or in Fortran order.
pub(crate) fn read(path: &Path) -> anyhow::Result<Floats> {
    if path.is_dir() {
        bail!("{}: is a folder; name the .npy file in it", path.display());
    }
    let bytes = cp_net::read_file(path, "an array of NumPy's (.npy)")?;
    let floats = match ArrayD::<Number<f32>>::read_npy(Cursor::new(&bytes)) {
        Err(ReadNpyError::WrongDescriptor(_)) => {
            ArrayD::<Number<f64>>::read_npy(Cursor::new(&bytes))
                .map(|array| Floats::F64(array.mapv(|x| x.0)))
        }
        array => array.map(|array| Floats::F32(array.mapv(|x| x.0))),
    };
    let floats = floats.map_err(|error| match (FileKind::of(&bytes), error) {
        (FileKind::Npy, error) => explain(error),
        (kind, _) => foreign(kind),
    });
    floats
        .and_then(|floats| {
            match &floats {
                Floats::F32(array) => finite(array)?,
                Floats::F64(array) => finite(array)?,
            }
            Ok(floats)
        })
        .with_context(|| path.display().to_string())
}

/// What a file is in the place of an array, and how to come by one.
fn foreign(kind: FileKind) -> anyhow::Error {
    let way_out = match kind {
        FileKind::Npz => "take one array out of it: numpy.save('x.npy', numpy.load(FILE)['NAME'])",
        FileKind::Safetensors => {
            "take one array out of it: numpy.save('x.npy', safetensors.numpy.load_file(FILE)['NAME']); whole models are for `polyad compress`"
        }
        FileKind::PyTorchZip | FileKind::Pickle => {
            "take one array out of it: numpy.save('x.npy', torch.load(FILE, weights_only=True)['NAME'].numpy())"
        }
        FileKind::LfsPointer
        | FileKind::AnnexPointer
        | FileKind::Empty
        | FileKind::Zeros
        | FileKind::WebPage
        | FileKind::ErrorAnswer => kind.way_out(),
        _ => "write the array with numpy.save",
    };
    anyhow!("is {kind}, not an array of NumPy's (.npy); {way_out}")
}

/// That all numbers of an array are numbers.
fn finite<T: Float>(array: &ArrayD<T>) -> anyhow::Result<()> {
    match array.iter().filter(|x| !x.is_number()).count() {
        0 => Ok(()),
        count => bail!(
            "holds {count} values that are NaN or infinite; they cannot be decomposed: find where they come from"
        ),
    }
}

/// What is asked of either float type.
trait Float {
    fn is_number(&self) -> bool;
}

impl Float for f32 {
    fn is_number(&self) -> bool {
        self.is_finite()
    }
}

impl Float for f64 {
    fn is_number(&self) -> bool {
        self.is_finite()
    }
}

/// f64 as f32, where that keeps the numbers.
pub(crate) fn narrowed(array: &ArrayD<f64>) -> anyhow::Result<ArrayD<f32>> {
    let narrow = array.mapv(|x| x as f32);
    let lost = narrow.iter().filter(|x| !x.is_finite()).count();
    if lost > 0 {
        bail!(
            "holds {lost} values that are too large for f32; leave out --dtype f32, or scale the array"
        );
    }
    if !array.iter().all(|x| *x == 0.0) && !narrow.iter().any(|x| x.is_normal()) {
        bail!(
            "holds only values that are too small for f32; leave out --dtype f32, or scale the array"
        );
    }
    Ok(narrow)
}

/// A number as it is read. The numbers that ndarray-npy knows allocate what the header claims before they look at the
/// file; a damaged header could ask for more memory than there is, and an allocation that fails ends the program.
#[derive(Clone, Copy)]
struct Number<T>(T);

/// The two ways in which a file writes a number, and their names in NumPy.
trait Bytes<const N: usize>: Sized {
    const LITTLE: &str;
    const BIG: &str;
    fn from_little(bytes: [u8; N]) -> Self;
    fn from_big(bytes: [u8; N]) -> Self;
}

macro_rules! numbers {
    ($($element:ty, $size:literal, $little:literal, $big:literal;)+) => { $(
        impl Bytes<$size> for $element {
            const LITTLE: &str = $little;
            const BIG: &str = $big;

            fn from_little(bytes: [u8; $size]) -> Self {
                <$element>::from_le_bytes(bytes)
            }

            fn from_big(bytes: [u8; $size]) -> Self {
                <$element>::from_be_bytes(bytes)
            }
        }

        impl ReadableElement for Number<$element> {
            fn read_to_end_exact_vec<R: Read>(
                reader: R,
                kind: &Value,
                len: usize,
            ) -> Result<Vec<Self>, ReadDataError> {
                numbers(reader, kind, len)
            }
        }
    )+ };
}

numbers! {
    f64, 8, "<f8", ">f8";
    f32, 4, "<f4", ">f4";
    f16, 2, "<f2", ">f2";
    i64, 8, "<i8", ">i8";
    i32, 4, "<i4", ">i4";
    i8, 1, "|i1", "|i1";
    u8, 1, "|u1", "|u1";
}

/// All of `reader`, which must hold exactly `len` numbers of the given kind.
fn numbers<T: Bytes<N>, const N: usize>(
    mut reader: impl Read,
    kind: &Value,
    len: usize,
) -> Result<Vec<Number<T>>, ReadDataError> {
    let read = match kind {
        Value::String(kind) if kind == T::LITTLE => T::from_little,
        Value::String(kind) if kind == T::BIG => T::from_big,
        other => return Err(ReadDataError::WrongDescriptor(other.clone())),
    };
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    match bytes.len().checked_sub(len.saturating_mul(N)) {
        None => Err(ReadDataError::MissingData),
        Some(0) => Ok(bytes.as_chunks::<N>().0.iter().map(|&bytes| Number(read(bytes))).collect()),
        Some(extra) => Err(ReadDataError::ExtraBytes(extra)),
    }
}

/// What is wrong with a `.npy` file, and the way out.
fn explain(error: ReadNpyError) -> anyhow::Error {
    match error {
        ReadNpyError::WrongDescriptor(kind) => anyhow!(
            "holds numbers of type {kind}; polyad takes 'f4' and 'f8': convert them with NumPy's x.astype('float32')"
        ),
        ReadNpyError::MissingData => anyhow!("ends before its last number: the file is truncated"),
        ReadNpyError::ExtraBytes(extra) => {
            anyhow!("has {extra} bytes behind its last number: the file is damaged")
        }
        ReadNpyError::ParseHeader(error) => {
            // Its first line: the others quote the file.
            let told = error.to_string();
            let told: String = told.lines().next().unwrap_or_default().chars().take(120).collect();
            anyhow!("is no .npy file of NumPy's, or a damaged one: {told}")
        }
        ReadNpyError::LengthOverflow => {
            anyhow!(
                "claims more numbers than any file holds: its header is damaged; write it again"
            )
        }
        ReadNpyError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            anyhow!("ends inside its header: the file is empty or truncated")
        }
        error => anyhow!(error),
    }
}

/// Writes λ as `weights` (`[R]`) and A⁽ⁿ⁾ as `factor_n` (`[Iₙ, R]`).
pub(crate) fn write_factors<T: WritableElement>(
    cp: &CpTensor<T>,
    to: &mut (impl Write + Seek),
) -> anyhow::Result<()> {
    let mut archive = NpzWriter::new(BufWriter::new(to));
    archive.add_array("weights", &cp.weights)?;
    for (mode, factor) in cp.factors.iter().enumerate() {
        archive.add_array(format!("factor_{mode}"), factor)?;
    }
    archive.finish()?;
    Ok(())
}

/// Writes 𝒢 as `core` and U⁽ⁿ⁾ as `factor_n` (`[Iₙ, Rₙ]`) for the modes that have one.
pub(crate) fn write_tucker<T: WritableElement>(
    tucker: &TuckerTensor<T>,
    to: &mut (impl Write + Seek),
) -> anyhow::Result<()> {
    let mut archive = NpzWriter::new(BufWriter::new(to));
    archive.add_array("core", &tucker.core)?;
    for (mode, factor) in tucker.factors.iter().enumerate() {
        if let Some(factor) = factor {
            archive.add_array(format!("factor_{mode}"), factor)?;
        }
    }
    archive.finish()?;
    Ok(())
}

/// Opens a file that is read in parts: no pipe, whose other end may never come, and no device.
fn open(path: &Path) -> anyhow::Result<File> {
    let kind = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    if !kind.is_file() && !kind.is_dir() {
        bail!(
            "{}: is a pipe or a device, not a file; write what comes out of it into a file",
            path.display()
        );
    }
    File::open(path).with_context(|| path.display().to_string())
}

/// Reads what [`write_factors`] wrote, from either float type. Without `weights` they are all 1.
pub(crate) fn read_factors(path: &Path) -> anyhow::Result<CpTensor> {
    let named = || path.display().to_string();
    let mut front = Vec::new();
    open(path)?.take(1 << 16).read_to_end(&mut front).with_context(named)?;
    let kind = FileKind::of(&front);
    // The names in an archive may stand behind what is looked at.
    if !matches!(kind, FileKind::Npz | FileKind::Zip) {
        bail!("{}: is {kind}, not an archive of NumPy's (.npz) as --out writes it", path.display());
    }
    let file = File::open(path).with_context(named)?;
    let factors = (|| {
        let mut archive = NpzReader::new(BufReader::new(file))
            .context("is no .npz archive of NumPy's, or a truncated one")?;
        let names = archive.names()?;
        let order = (0..).take_while(|mode| names.contains(&format!("factor_{mode}"))).count();
        if order == 0 {
            bail!(
                "holds no array `factor_0`; the arrays wanted are `weights`, `factor_0`, `factor_1`, …"
            );
        }
        let factors = (0..order)
            .map(|mode| {
                let name = format!("factor_{mode}");
                let factor = member(&mut archive, &name)?;
                factor
                    .into_dimensionality::<Ix2>()
                    .with_context(|| format!("`{name}` is no matrix [I, R]"))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        if names.iter().any(|name| name == "weights") {
            let weights = member(&mut archive, "weights")?;
            let weights =
                weights.into_dimensionality::<Ix1>().context("`weights` is no vector [R]")?;
            Ok(CpTensor::new(weights, factors)?)
        } else {
            Ok(CpTensor::from_factors(factors)?)
        }
    })();
    factors.with_context(|| path.display().to_string())
}

/// One array of an archive in double precision.
fn member(archive: &mut NpzReader<BufReader<File>>, name: &str) -> anyhow::Result<ArrayD<f64>> {
    let array = match archive.by_name::<ndarray::OwnedRepr<Number<f64>>, IxDyn>(name) {
        Err(ReadNpzError::Npy(ReadNpyError::WrongDescriptor(_))) => archive
            .by_name::<ndarray::OwnedRepr<Number<f32>>, IxDyn>(name)
            .map(|array| array.mapv(|x| f64::from(x.0))),
        array => array.map(|array| array.mapv(|x| x.0)),
    };
    array
        .map_err(|error| match error {
            ReadNpzError::Npy(error) => explain(error),
            error => anyhow!(error),
        })
        .and_then(|array| finite(&array).map(|()| array))
        .with_context(|| format!("`{name}`"))
}

/// Every array of an `.npz` archive by its name, or the only one of an `.npy` file, whose name is then `arr_0`, as NumPy has it.
pub(crate) fn arrays(path: &Path) -> anyhow::Result<Vec<(String, Tensor)>> {
    let named = || path.display().to_string();
    let mut file = open(path)?;
    let mut front = Vec::new();
    Read::by_ref(&mut file).take(1 << 16).read_to_end(&mut front).with_context(named)?;
    let kind = FileKind::of(&front);
    if kind == FileKind::Npy {
        file.read_to_end(&mut front).with_context(named)?;
        let array = any(Npy(&front)).with_context(named)?;
        return Ok(vec![("arr_0".into(), array)]);
    }
    // The names in an archive may stand behind what is looked at.
    if !matches!(kind, FileKind::Npz | FileKind::Zip) {
        bail!(
            "{}: is {kind}, not arrays of NumPy's; write them with numpy.savez('inputs.npz', NAME=array, …), examples along the first axis",
            path.display()
        );
    }
    file.rewind().with_context(named)?;
    let mut archive = NpzReader::new(BufReader::new(file))
        .context("is no .npz archive of NumPy's, or a truncated one")
        .with_context(named)?;
    let names = archive.names().with_context(named)?;
    if names.is_empty() {
        bail!("{}: holds no array", path.display());
    }
    names
        .into_iter()
        .map(|name| {
            let array = any(Member(&mut archive, &name));
            let array = array.with_context(|| format!("`{name}`")).with_context(named)?;
            Ok((name, array))
        })
        .collect()
}

/// A place where an array lies.
trait Place {
    fn read<T: ReadableElement>(&mut self) -> Result<ArrayD<T>, ReadNpyError>;
}

/// The bytes of an `.npy` file.
struct Npy<'a>(&'a [u8]);

impl Place for Npy<'_> {
    fn read<T: ReadableElement>(&mut self) -> Result<ArrayD<T>, ReadNpyError> {
        ArrayD::read_npy(Cursor::new(self.0))
    }
}

/// A member of an `.npz` archive.
struct Member<'a>(&'a mut NpzReader<BufReader<File>>, &'a str);

impl Place for Member<'_> {
    fn read<T: ReadableElement>(&mut self) -> Result<ArrayD<T>, ReadNpyError> {
        let array = self.0.by_name::<ndarray::OwnedRepr<T>, IxDyn>(self.1);
        array.map_err(|error| match error {
            ReadNpzError::Npy(error) => error,
            other => ReadNpyError::Io(io::Error::other(other)),
        })
    }
}

/// The array at `place`, in the type that it has.
fn any(mut place: impl Place) -> anyhow::Result<Tensor> {
    macro_rules! tried {
        ($($element:ty)+) => { $(
            match place.read::<Number<$element>>() {
                Err(ReadNpyError::WrongDescriptor(_)) => {}
                array => return Ok(array.map_err(explain)?.mapv(|x| x.0).into()),
            }
        )+ };
    }
    tried!(f32 f64 f16 i64 i32 i8 u8);
    match place.read::<bool>() {
        Err(ReadNpyError::WrongDescriptor(kind)) => bail!(
            "holds numbers of type {kind}, which no model takes here: floats of 16 to 64 bits, whole numbers of 8, 32 or 64, and truth values; \
             convert them with NumPy's x.astype('float32')"
        ),
        array => Ok(array.map_err(explain)?.into()),
    }
}
