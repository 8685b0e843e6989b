//! CPAC-Conv by the expressions of Wang, Guo & Yue (arXiv 2005.13746), §3: forward and backward, stride 1, no padding, one image, in
//! double precision.

use ndarray::{Array2, Array3, Array4, ArrayD, ArrayView3, Ix2, Ix3, s};

/// The factors of a kernel `[T, S, kh, kw]`, in the order of the parameters of `cp_conv`.
#[derive(Clone)]
pub(crate) struct Cpac {
    /// kᴺ, `[T, R]`.
    pub(crate) output: Array2<f64>,
    /// kˢ, `[S, R]`.
    pub(crate) input: Array2<f64>,
    /// kˣ, `[kh, R]`.
    pub(crate) rows: Array2<f64>,
    /// kʸ, `[kw, R]`.
    pub(crate) columns: Array2<f64>,
}

/// What the backward pass needs of the forward pass, for one term: A3, A2 and A1.
struct Partial {
    /// Σₛ P kˢ\[s\]: `[H′, W′, kh, kw]`.
    third: Array4<f64>,
    /// Σᵧ A3 kʸ\[y\]: `[H′, W′, kh]`.
    second: Array3<f64>,
    /// Σₓ A2 kˣ\[x\]: `[H′, W′]`.
    first: Array2<f64>,
}

/// Gradients of all factors, and of the image.
pub(crate) struct Gradients {
    pub(crate) factors: Cpac,
    pub(crate) image: Array3<f64>,
}

impl Cpac {
    pub(crate) fn new(factors: [&ArrayD<f64>; 4]) -> Self {
        let [output, input, rows, columns] =
            factors.map(|factor| factor.clone().into_dimensionality::<Ix2>().unwrap());
        Self { output, input, rows, columns }
    }

    fn rank(&self) -> usize {
        self.output.ncols()
    }

    fn partial(&self, image: ArrayView3<'_, f64>, term: usize) -> Partial {
        let (kernel_rows, kernel_columns) = (self.rows.nrows(), self.columns.nrows());
        let (_, height, width) = image.dim();
        let (height, width) = (height + 1 - kernel_rows, width + 1 - kernel_columns);
        let third =
            Array4::from_shape_fn((height, width, kernel_rows, kernel_columns), |(i, j, x, y)| {
                image.slice(s![.., i + x, j + y]).dot(&self.input.column(term))
            });
        let second = Array3::from_shape_fn((height, width, kernel_rows), |(i, j, x)| {
            third.slice(s![i, j, x, ..]).dot(&self.columns.column(term))
        });
        let first = Array2::from_shape_fn((height, width), |(i, j)| {
            second.slice(s![i, j, ..]).dot(&self.rows.column(term))
        });
        Partial { third, second, first }
    }

    /// The maps of every term, `[R, T, H′, W′]`, whose sum is the output.
    pub(crate) fn term_maps(&self, image: ArrayView3<'_, f64>) -> Array4<f64> {
        let maps: Vec<Array2<f64>> =
            (0..self.rank()).map(|term| self.partial(image, term).first).collect();
        let (height, width) = maps[0].dim();
        let shape = (self.rank(), self.output.nrows(), height, width);
        Array4::from_shape_fn(shape, |(r, n, i, j)| self.output[[n, r]] * maps[r][[i, j]])
    }

    /// The gradients of Σ O ⊙ D, with D = `cotangent`, `[T, H′, W′]`.
    pub(crate) fn backward(
        &self,
        image: ArrayView3<'_, f64>,
        cotangent: ArrayView3<'_, f64>,
    ) -> Gradients {
        let mut factors = self.clone();
        let mut gradient = Array3::zeros(image.dim());
        for term in 0..self.rank() {
            let Partial { third, second, first } = self.partial(image, term);
            for (n, map) in cotangent.outer_iter().enumerate() {
                factors.output[[n, term]] = (&map * &first).sum();
            }
            // Σₙ D kᴺ, which all other gradients have in common.
            let back = Array2::from_shape_fn(first.dim(), |(i, j)| {
                cotangent.slice(s![.., i, j]).dot(&self.output.column(term))
            });
            let at = |factor: &Array2<f64>, index: usize| factor[[index, term]];
            for x in 0..self.rows.nrows() {
                factors.rows[[x, term]] = (&back * &second.slice(s![.., .., x])).sum();
            }
            for y in 0..self.columns.nrows() {
                factors.columns[[y, term]] = (0..self.rows.nrows())
                    .map(|x| at(&self.rows, x) * (&back * &third.slice(s![.., .., x, y])).sum())
                    .sum();
            }
            factors.input.column_mut(term).fill(0.0);
            for ((i, j), d) in back.indexed_iter() {
                for x in 0..self.rows.nrows() {
                    for y in 0..self.columns.nrows() {
                        let weight = d * at(&self.rows, x) * at(&self.columns, y);
                        for s in 0..self.input.nrows() {
                            factors.input[[s, term]] += weight * image[[s, i + x, j + y]];
                            gradient[[s, i + x, j + y]] += weight * at(&self.input, s);
                        }
                    }
                }
            }
        }
        Gradients { factors, image: gradient }
    }

    /// Σ O ⊙ D.
    pub(crate) fn score(&self, image: ArrayView3<'_, f64>, cotangent: ArrayView3<'_, f64>) -> f64 {
        let output = self.term_maps(image).sum_axis(ndarray::Axis(0));
        (&output * &cotangent).sum()
    }
}

/// `[C, H, W]` of an array of the files.
pub(crate) fn map(array: &ArrayD<f64>) -> Array3<f64> {
    array.clone().into_dimensionality::<Ix3>().unwrap()
}
