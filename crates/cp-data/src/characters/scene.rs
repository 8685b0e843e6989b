//! What is behind the character, and what a bad camera makes of both.

use rand::Rng;

use super::SIDE;

/// An image in the making: brightness 0 to 1, row by row.
#[derive(Clone)]
pub(super) struct Canvas {
    pixels: [f32; SIDE * SIDE],
}

/// Points per side of a pixel at which ink is looked up.
pub(super) const SAMPLES: usize = 3;

impl Canvas {
    /// An even brightness, with a gradient, and at times with patches, stripes or clutter.
    pub(super) fn background(rng: &mut impl Rng) -> Self {
        let base = rng.random_range(0.0..1.0_f32);
        let slope = [(); 2].map(|()| rng.random_range(-0.25..0.25_f32) / SIDE as f32);
        let patches = Patches::random(rng);
        let patchiness = if rng.random::<f32>() < 0.5 { rng.random_range(0.0..0.25) } else { 0.0 };
        let stripes =
            if rng.random::<f32>() < 0.25 { rng.random_range(0.0..0.12_f32) } else { 0.0 };
        let frequency = [(); 2].map(|()| rng.random_range(-1.2..1.2_f32));
        let phase = rng.random_range(0.0..6.3_f32);
        let center = SIDE as f32 / 2.0;
        let mut canvas = Canvas { pixels: [0.0; SIDE * SIDE] };
        for (at, pixel) in canvas.pixels.iter_mut().enumerate() {
            let (x, y) = ((at % SIDE) as f32, (at / SIDE) as f32);
            *pixel = base
                + slope[0] * (x - center)
                + slope[1] * (y - center)
                + patchiness * patches.at(x, y)
                + stripes * (frequency[0] * x + frequency[1] * y + phase).sin();
        }
        if rng.random::<f32>() < 0.4 {
            for _ in 0..rng.random_range(1..=3) {
                canvas.clutter(base, rng);
            }
        }
        canvas.pixels.iter_mut().for_each(|pixel| *pixel = pixel.clamp(0.0, 1.0));
        canvas
    }

    /// A straight band across the patch, at any angle, somewhat darker or lighter than the rest.
    fn clutter(&mut self, base: f32, rng: &mut impl Rng) {
        let shade = (base + rng.random_range(-0.3..0.3_f32)).clamp(0.0, 1.0);
        let (sin, cos) = rng.random_range(0.0..std::f32::consts::PI).sin_cos();
        let offset = rng.random_range(-12.0..12.0_f32);
        let half_width = rng.random_range(0.4..2.5_f32);
        let center = SIDE as f32 / 2.0;
        self.paint(shade, 1.0, |x, y| {
            let distance = ((x - center) * cos + (y - center) * sin - offset).abs();
            f32::from(u8::from(distance < half_width))
        });
    }

    /// Mean brightness of the middle, where the character goes.
    pub(super) fn mean(&self) -> f32 {
        let middle = SIDE / 4..SIDE - SIDE / 4;
        let sum: f32 = middle
            .clone()
            .flat_map(|y| middle.clone().map(move |x| self.pixels[y * SIDE + x]))
            .sum();
        sum / (middle.len() * middle.len()) as f32
    }

    /// Lays `shade` over the canvas where `coverage(x, y)` (0 to 1) says so, at most with `opacity`. Coordinates are in
    /// pixels, from the upper left corner.
    pub(super) fn paint(&mut self, shade: f32, opacity: f32, coverage: impl Fn(f32, f32) -> f32) {
        for (at, pixel) in self.pixels.iter_mut().enumerate() {
            let (x, y) = ((at % SIDE) as f32, (at / SIDE) as f32);
            let mut sum = 0.0;
            for sample in 0..SAMPLES * SAMPLES {
                let (dx, dy) = ((sample % SAMPLES) as f32 + 0.5, (sample / SAMPLES) as f32 + 0.5);
                sum += coverage(x + dx / SAMPLES as f32, y + dy / SAMPLES as f32);
            }
            let alpha = opacity * sum / (SAMPLES * SAMPLES) as f32;
            *pixel += alpha * (shade - *pixel);
        }
    }

    /// Gaussian blur, standard deviation in pixels; the border is repeated.
    pub(super) fn blur(&mut self, deviation: f32) {
        let weights: [f32; 3] =
            [0.0, 1.0, 2.0].map(|d: f32| (-d * d / (2.0 * deviation * deviation)).exp());
        let total = weights[0] + 2.0 * (weights[1] + weights[2]);
        let last = SIDE as isize - 1;
        for vertical in [false, true] {
            let before = self.pixels;
            for (at, pixel) in self.pixels.iter_mut().enumerate() {
                let (x, y) = ((at % SIDE) as isize, (at / SIDE) as isize);
                let sum: f32 = (-2..=2_isize)
                    .map(|d| {
                        let (x, y) = if vertical {
                            (x, (y + d).clamp(0, last))
                        } else {
                            ((x + d).clamp(0, last), y)
                        };
                        weights[d.unsigned_abs()] * before[y as usize * SIDE + x as usize]
                    })
                    .sum();
                *pixel = sum / total;
            }
        }
    }

    pub(super) fn pixels(&self) -> impl Iterator<Item = f32> + '_ {
        self.pixels.iter().copied()
    }
}

/// Smooth random patches: numbers from −1 to 1 on a coarse grid, with bilinear transitions.
struct Patches {
    grid: [[f32; 6]; 6],
}

impl Patches {
    fn random(rng: &mut impl Rng) -> Self {
        Patches { grid: [(); 6].map(|()| [(); 6].map(|()| rng.random_range(-1.0..1.0))) }
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        let step = SIDE as f32 / 4.8;
        let (x, y) = (x / step, y / step);
        let (left, top) = ((x as usize).min(4), (y as usize).min(4));
        let (fx, fy) = (x - left as f32, y - top as f32);
        let row = |row: usize| self.grid[row][left] * (1.0 - fx) + self.grid[row][left + 1] * fx;
        row(top) * (1.0 - fy) + row(top + 1) * fy
    }
}
