//! The characters of the DejaVu faces, as large pictures to sample from.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, PxScale};
use dejavu::{sans, sans_condensed, sans_mono, serif, serif_condensed};
use rayon::prelude::*;

use super::CLASSES;

/// A face with its 36 characters.
pub(super) struct Face {
    #[cfg_attr(not(test), allow(dead_code, reason = "for the messages of tests"))]
    pub(super) name: &'static str,
    /// Whether only test images show it.
    pub(super) held_out: bool,
    /// In the order of the classes.
    pub(super) glyphs: Vec<Glyph>,
}

/// A character at a capital height of [`Glyph::CAP_HEIGHT`] pixels.
pub(super) struct Glyph {
    width: usize,
    height: usize,
    /// Ink, 0 to 255, row by row.
    ink: Vec<u8>,
}

type Data = fn() -> &'static [u8];

/// Name, file, held out. Held out is one face of each family but the first, in different weights and slants.
const FACES: [(&str, Data, bool); 21] = [
    ("Sans", sans::regular, false),
    ("Sans Bold", sans::bold, false),
    ("Sans Oblique", sans::oblique, false),
    ("Sans Bold Oblique", sans::bold_oblique, false),
    ("Sans Extra Light", sans::extra_light, false),
    ("Sans Condensed", sans_condensed::regular, false),
    ("Sans Condensed Bold", sans_condensed::bold, true),
    ("Sans Condensed Oblique", sans_condensed::oblique, false),
    ("Sans Condensed Bold Oblique", sans_condensed::bold_oblique, false),
    ("Sans Mono", sans_mono::regular, false),
    ("Sans Mono Bold", sans_mono::bold, false),
    ("Sans Mono Oblique", sans_mono::oblique, true),
    ("Sans Mono Bold Oblique", sans_mono::bold_oblique, false),
    ("Serif", serif::regular, false),
    ("Serif Bold", serif::bold, false),
    ("Serif Italic", serif::italic, true),
    ("Serif Bold Italic", serif::bold_italic, false),
    ("Serif Condensed", serif_condensed::regular, false),
    ("Serif Condensed Bold", serif_condensed::bold, false),
    ("Serif Condensed Italic", serif_condensed::italic, false),
    ("Serif Condensed Bold Italic", serif_condensed::bold_italic, true),
];

/// All faces, drawn on first use.
pub(super) fn faces() -> &'static [Face] {
    static DRAWN: OnceLock<Vec<Face>> = OnceLock::new();
    DRAWN.get_or_init(|| {
        FACES
            .par_iter()
            .map(|&(name, data, held_out)| Face { name, held_out, glyphs: draw(name, data()) })
            .collect()
    })
}

/// The fonts are part of the program, so that they can be drawn is a matter for its tests, not for its users.
fn draw(name: &str, data: &[u8]) -> Vec<Glyph> {
    let font = FontRef::try_from_slice(data)
        .unwrap_or_else(|error| panic!("the embedded font {name}: {error}"));
    let outline = |character, px: f32| {
        let glyph = font.glyph_id(character).with_scale(PxScale::from(px));
        font.outline_glyph(glyph)
            .unwrap_or_else(|| panic!("the embedded font {name} has no {character}"))
    };
    let px = 100.0 * Glyph::CAP_HEIGHT / outline('H', 100.0).px_bounds().height();
    let draw_one = |character| {
        let outline = outline(character, px);
        let bounds = outline.px_bounds();
        let (width, height) = (bounds.width().ceil() as usize, bounds.height().ceil() as usize);
        let mut ink = vec![0; width * height];
        outline.draw(|x, y, coverage| {
            if let Some(pixel) = ink.get_mut(y as usize * width + x as usize) {
                *pixel = (coverage * 255.0).round().clamp(0.0, 255.0) as u8;
            }
        });
        Glyph { width, height, ink }
    };
    CLASSES.chars().map(draw_one).collect()
}

impl Glyph {
    /// Height of an H, in units of the glyph (pixels of its picture).
    pub(super) const CAP_HEIGHT: f32 = 48.0;

    pub(super) fn width(&self) -> f32 {
        self.width as f32
    }

    /// Ink at a point counted from the middle of the picture, 0 to 1, bilinear.
    pub(super) fn sample(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x + self.width as f32 / 2.0 - 0.5, y + self.height as f32 / 2.0 - 0.5);
        if x <= -1.0 || y <= -1.0 || x >= self.width as f32 || y >= self.height as f32 {
            return 0.0;
        }
        let (left, top) = (x.floor(), y.floor());
        let (fx, fy) = (x - left, y - top);
        let at = |column: i32, row: i32| -> f32 {
            if column < 0 || row < 0 || column >= self.width as i32 || row >= self.height as i32 {
                return 0.0;
            }
            f32::from(self.ink[row as usize * self.width + column as usize])
        };
        let (left, top) = (left as i32, top as i32);
        let upper = at(left, top) * (1.0 - fx) + at(left + 1, top) * fx;
        let lower = at(left, top + 1) * (1.0 - fx) + at(left + 1, top + 1) * fx;
        (upper * (1.0 - fy) + lower * fy) / 255.0
    }
}
