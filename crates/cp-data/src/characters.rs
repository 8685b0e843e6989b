//! `characters`: 36 classes (A–Z, 0–9), 24×24 grey, drawn rather than photographed.
//!
//! Each image is a character of a random DejaVu face, distorted (turned, sheared, stretched, moved, bent), often with
//! the edges of its neighbors in a word, composed with a background of gradients, texture and clutter, then blurred and
//! covered with noise. Lebedev et al. (arXiv 1412.6553, §4.1) trained their CharNet on characters made in this way, so
//! this is a set of the same kind, not their set.
//!
//! `moving-characters` shows such a scene in several frames, through which the character moves and each of which has noise of its own, as a
//! strip: one frame below the other. A single frame is hard to read; what the frames have in common is not.
//!
//! Nothing is stored: an image depends on the seed, the part and its index alone. The three parts draw from unrelated
//! random streams, and [`Part::Test`] from faces that no training image shows.

mod glyph;
mod scene;

use ndarray::Array4;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use self::glyph::{Face, Glyph, faces};
use self::scene::{Canvas, SAMPLES};
use crate::checksum::sha256;
use crate::seed::{Use, generator};
use crate::{Images, Source};

/// Rows and columns of an image.
const SIDE: usize = 24;
const CLASSES: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// The parts of the data set; images of different parts never coincide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// For training: 17 faces.
    Train,
    /// For decisions during training: the faces of the training images, drawn anew.
    Validation,
    /// For the final figure: four held-out faces (of families whose other weights and slants are in the training part).
    Test,
}

/// Generator of the data set `characters`.
#[derive(Debug, Clone, Copy)]
pub struct Characters;

impl Characters {
    /// `count` training images, the classes in turn: pixels `[count, 1, 24, 24]`. Runs on all threads of rayon's pool,
    /// with the same result for any number of them.
    ///
    /// ```
    /// use cp_data::{Characters, Dataset};
    ///
    /// let images = Characters::generate(40, 1);
    /// assert_eq!(images.pixels().shape(), [40, 1, 24, 24]);
    /// assert_eq!(images.classes()[images.label(37)], "B");
    /// ```
    pub fn generate(count: usize, seed: u64) -> Images {
        Characters::part(Part::Train, count, seed)
    }

    /// As [`generate`](Self::generate), for any part.
    pub fn part(part: Part, count: usize, seed: u64) -> Images {
        let purpose = match part {
            Part::Train => Use::CharactersTrain,
            Part::Validation => Use::CharactersValidation,
            Part::Test => Use::CharactersTest,
        };
        draw("characters", part, count, 1, seed, purpose, |scene, face, rng, image| {
            scene.frame(face, [0.0; 2], scene.noise, rng, image);
        })
    }

    /// Scenes in which the character moves on a straight line, by 0.3 to 1 pixels from frame to frame, through its place in the middle; the noise
    /// of every frame is its own, and 3 to 6 times that of [`part`](Self::part): pixels `[count, 1, frames·24, 24]`, the frames of a scene one below the
    /// other.
    pub fn moving(part: Part, count: usize, frames: usize, seed: u64) -> Images {
        let purpose = match part {
            Part::Train => Use::MovingTrain,
            Part::Validation => Use::MovingValidation,
            Part::Test => Use::MovingTest,
        };
        draw("moving-characters", part, count, frames, seed, purpose, |scene, face, rng, strip| {
            let (sin, cos) = rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
            let speed = rng.random_range(0.3..1.0_f32);
            let noise = rng.random_range(0.12..0.24_f32);
            for (frame, image) in strip.chunks_exact_mut(SIDE * SIDE).enumerate() {
                let way = speed * (frame as f32 - (frames as f32 - 1.0) / 2.0);
                scene.frame(face, [way * cos, way * sin], noise, rng, image);
            }
        })
    }
}

/// `count` scenes, the classes in turn, each in `frames` frames that `show` makes of it.
fn draw(
    set: &str,
    part: Part,
    count: usize,
    frames: usize,
    seed: u64,
    purpose: Use,
    show: impl Fn(&Scene, &Face, &mut ChaCha8Rng, &mut [u8]) + Sync,
) -> Images {
    let name = match part {
        Part::Train => "train",
        Part::Validation => "validation",
        Part::Test => "test",
    };
    let classes: Vec<String> = CLASSES.chars().map(String::from).collect();
    let faces: Vec<&Face> =
        faces().iter().filter(|face| face.held_out == (part == Part::Test)).collect();
    let labels: Vec<usize> = (0..count).map(|index| index % classes.len()).collect();

    let mut pixels = Array4::zeros((count, 1, frames * SIDE, SIDE));
    let strip = (frames * SIDE * SIDE).max(1);
    let images = pixels.as_slice_mut().unwrap_or_default().par_chunks_exact_mut(strip);
    images.zip(&labels).enumerate().for_each(|(index, (image, &label))| {
        let mut rng = generator(seed, purpose, 0, index as u64);
        let face = faces[rng.random_range(0..faces.len())];
        let scene = Scene::random(face, label, &mut rng);
        show(&scene, face, &mut rng, image);
    });

    let file = format!("{set}/{name}: {count} images of seed {seed}, pixels as rendered");
    let source = Source { file, sha256: sha256(pixels.as_slice().unwrap_or_default()) };
    Images::of_parts(format!("{set}/{name}"), classes, pixels, labels, vec![source])
}

/// What an image shows: a character, perhaps with its neighbors in a word, on a background.
struct Scene {
    background: Canvas,
    label: usize,
    ink: f32,
    placement: Placement,
    /// Brightness of a shadow and where it lies.
    shadow: Option<(f32, Placement)>,
    /// Glyphs of the face beside the character, and how far away in units of glyphs.
    neighbors: Vec<(usize, f32)>,
    /// Standard deviation in pixels.
    blur: Option<f32>,
    /// Standard deviation of the brightness that keeps even the faintest character readable.
    noise: f32,
}

impl Scene {
    /// The ranges were set by a small network (three convolutions of 16, 48 and 64 filters, two linear layers), which after
    /// six passes over 20,000 images reads 94.0 % of the validation characters and 93.6 % of the test characters. The most
    /// frequent confusion is O with 0, which only their widths tell apart (or a dot, in Mono); a turn of at most 10° makes no
    /// character of another.
    fn random(face: &Face, label: usize, rng: &mut impl Rng) -> Self {
        let background = Canvas::background(rng);

        // Ink that stands out from the background: darker or lighter by at least a quarter of the range.
        let paper = background.mean();
        let contrast = rng.random_range(0.25..0.85_f32);
        let room = if rng.random::<f32>() < 1.0 - paper { 1.0 - paper } else { -paper };
        let room = if room.abs() < 0.25 { room - room.signum() } else { room };
        let ink = paper + contrast.min(room.abs()) * room.signum();

        let placement = Placement::random(&face.glyphs[label], rng);
        let shadow = if rng.random::<f32>() < 0.15 {
            let shade = rng.random_range(0.0..1.0);
            let shift =
                placement.shift.map(|shift| if rng.random() { shift + 1.0 } else { shift - 1.0 });
            Some((shade, Placement { shift, ..placement }))
        } else {
            None
        };

        let mut neighbors = Vec::new();
        for side in [-1.0, 1.0] {
            if rng.random::<f32>() < 0.3 {
                let other = rng.random_range(0..face.glyphs.len());
                let gap = rng.random_range(1.5..4.0) / placement.scale;
                let widths = face.glyphs[label].width() + face.glyphs[other].width();
                neighbors.push((other, side * (widths / 2.0 + gap)));
            }
        }

        let blurred = rng.random::<f32>() < 0.7;
        let blur = if blurred { Some(rng.random_range(0.3..1.0)) } else { None };
        let noise = rng.random_range(0.0..0.3_f32) * contrast.min(0.3);
        Self { background, label, ink, placement, shadow, neighbors, blur, noise }
    }

    /// Draws `SIDE·SIDE` pixels, row by row, with the character and what belongs to it `moved` by so many pixels, under `noise`.
    fn frame(
        &self,
        face: &Face,
        moved: [f32; 2],
        noise: f32,
        rng: &mut impl Rng,
        image: &mut [u8],
    ) {
        let mut canvas = self.background.clone();
        let glyph = &face.glyphs[self.label];
        let placed = |placement: &Placement| {
            let [x, y] = placement.shift;
            Placement { shift: [x + moved[0], y + moved[1]], ..*placement }
        };
        if let Some((shade, shadow)) = &self.shadow {
            let shadow = placed(shadow);
            canvas.paint(*shade, 0.5, |x, y| shadow.coverage(glyph, x, y, 0.0));
        }
        let placement = placed(&self.placement);
        canvas.paint(self.ink, 1.0, |x, y| placement.coverage(glyph, x, y, 0.0));
        // The neighbors in a word, as far as they reach into the patch.
        for &(other, distance) in &self.neighbors {
            let other = &face.glyphs[other];
            canvas.paint(self.ink, 1.0, |x, y| placement.coverage(other, x, y, distance));
        }
        if let Some(deviation) = self.blur {
            canvas.blur(deviation);
        }
        for (pixel, value) in image.iter_mut().zip(canvas.pixels()) {
            let draw: f32 = StandardNormal.sample(rng);
            *pixel = ((value + noise * draw) * 255.0).round().clamp(0.0, 255.0) as u8;
        }
    }
}

/// How a character lies in the patch: pixels to the glyph's own coordinates.
#[derive(Clone, Copy)]
struct Placement {
    /// Pixels of the patch per unit of the glyph.
    scale: f32,
    /// Row-major 2×2 map from the patch (from its center) to the glyph (from its center).
    inverse: [f32; 4],
    /// Where the glyph's center lies, from the patch's.
    shift: [f32; 2],
    /// How far each row of samples is moved sideways: a wave.
    sway: [f32; SIDE * SAMPLES],
}

impl Placement {
    fn random(glyph: &Glyph, rng: &mut impl Rng) -> Self {
        let mut normal = |limit: f32| -> f32 {
            let draw: f32 = StandardNormal.sample(rng);
            (draw * limit / 2.0).clamp(-limit, limit)
        };
        let (turn, shear, stretch) = (normal(10_f32.to_radians()), normal(0.25), normal(0.12));
        // Height of a capital in pixels; wide letters are made smaller so that they fit.
        let height = rng.random_range(13.0..18.0_f32);
        let scale = height.min(21.0 * Glyph::CAP_HEIGHT / glyph.width()) / Glyph::CAP_HEIGHT;
        let shift = [(); 2].map(|()| rng.random_range(-2.0..2.0));
        let (amplitude, phase) = (rng.random_range(0.0..0.7_f32), rng.random_range(0.0..6.3_f32));
        let frequency = rng.random_range(0.2..0.6_f32) / SAMPLES as f32;
        let sway = std::array::from_fn(|row| amplitude * (frequency * row as f32 + phase).sin());

        // patch = turn · shear · stretch · scale · glyph, inverted in closed form.
        let (sin, cos) = turn.sin_cos();
        let (sx, sy) = (scale * (1.0 + stretch / 2.0), scale * (1.0 - stretch / 2.0));
        let [a, b, c, d] = [cos * sx, (cos * shear - sin) * sy, sin * sx, (sin * shear + cos) * sy];
        let det = a * d - b * c;
        Placement { scale, inverse: [d / det, -b / det, -c / det, a / det], shift, sway }
    }

    /// Ink at a point of the patch, 0 to 1; the glyph moved sideways by `along`, in its own units.
    fn coverage(&self, glyph: &Glyph, x: f32, y: f32, along: f32) -> f32 {
        let center = SIDE as f32 / 2.0;
        let row = ((y * SAMPLES as f32) as usize).min(SIDE * SAMPLES - 1);
        let x = x - center - self.shift[0] - self.sway[row];
        let y = y - center - self.shift[1];
        let [a, b, c, d] = self.inverse;
        glyph.sample(a * x + b * y - along, c * x + d * y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, class_counts};

    #[test]
    fn images_depend_on_seed_part_and_index_alone() {
        let images = Characters::generate(100, 5);
        assert_eq!(
            Characters::generate(50, 5).pixels(),
            images.pixels().slice(ndarray::s![..50, .., .., ..])
        );
        assert_ne!(Characters::generate(100, 6).pixels(), images.pixels());
        assert_ne!(Characters::part(Part::Validation, 100, 5).pixels(), images.pixels());
        let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(single.install(|| Characters::generate(100, 5)).pixels(), images.pixels());
        assert_eq!(Characters::generate(100, 5).sources(), images.sources());
    }

    #[test]
    fn classes_are_balanced_and_images_not_empty() {
        let images = Characters::part(Part::Test, 360, 1);
        assert_eq!(class_counts(&images), [10; 36]);
        for image in images.pixels().outer_iter() {
            let (low, high) =
                image.iter().fold((255, 0), |(low, high), &v| (v.min(low), v.max(high)));
            assert!(high - low > 40, "an image from {low} to {high}");
        }
        assert!(Characters::generate(0, 1).is_empty());
    }

    /// The same scene in every frame, elsewhere and under other noise; one frame alone is a data set of its own.
    #[test]
    fn frames_of_a_scene_move() {
        let strips = Characters::moving(Part::Train, 72, 5, 3);
        assert_eq!(strips.pixels().shape(), [72, 1, 5 * SIDE, SIDE]);
        assert_eq!(Characters::moving(Part::Train, 72, 5, 3).pixels(), strips.pixels());
        assert_ne!(Characters::moving(Part::Test, 72, 5, 3).pixels(), strips.pixels());
        assert_eq!(class_counts(&strips), [2; 36]);
        let pixels = strips.pixels();
        let distance = |a: usize, b: usize| {
            let frames = pixels.outer_iter().map(|strip| {
                let of = |frame: usize| {
                    strip
                        .slice(ndarray::s![0, frame * SIDE..(frame + 1) * SIDE, ..])
                        .mapv(f32::from)
                };
                (of(a) - of(b)).mapv(f32::abs).mean().unwrap_or(0.0)
            });
            frames.sum::<f32>() / 72.0
        };
        // Neighbors differ by noise and a little way, the first and the last by a longer one.
        let (near, far) = (distance(0, 1), distance(0, 4));
        assert!(near > 5.0 && far > near * 1.05 && far < 100.0, "{near} {far}");
        assert_eq!(Characters::moving(Part::Test, 3, 1, 3).pixels().shape(), [3, 1, SIDE, SIDE]);
    }

    #[test]
    fn o_is_wider_than_zero_where_zero_has_no_dot() {
        let (o, zero) = (CLASSES.find('O').unwrap(), CLASSES.find('0').unwrap());
        for face in faces() {
            let ratio = face.glyphs[o].width() / face.glyphs[zero].width();
            println!("{}: {ratio:.2}", face.name);
            // More than a stretch of the one by the largest amount, 1.06 / 0.94, makes up for.
            assert!(ratio > 1.13 || face.name.contains("Mono"), "{}: {ratio}", face.name);
        }
    }
}
