//! Draws images of a data set side by side into a PNG, each enlarged three times, a class per row.
//!
//! `cargo run -p cp-data --example contact_sheet -- characters test sheet.png`
//! (any data set and split of `cp_data::open`; the data is looked for in `$POLYAD_DATA` and the cache)

use std::error::Error;

use cp_data::{Crop, DataDir, Resize, Transform, open};
use image::{Rgb, RgbImage};
use rand::SeedableRng;

const COLUMNS: usize = 24;
const ENLARGE: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, split, out] = &arguments[..] else {
        return Err("usage: contact_sheet DATASET SPLIT OUT.png".into());
    };
    let dataset = open(name, split, &DataDir::locate(None))?;

    let mut transform = Transform { channels: Some(3), ..Transform::default() };
    let [_, height, width]: [usize; 3] = dataset.image(0)?.dim().into();
    if height.max(width) > 64 {
        transform.resize = Some(Resize::ShorterSide(64));
        transform.crop = Crop::Center { height: 64, width: 64 };
    }
    let [_, height, width] = transform.output_shape([3, height, width])?;

    let rows = dataset.classes().len().min(40);
    let (cell_height, cell_width) = (height * ENLARGE + 2, width * ENLARGE + 2);
    let mut sheet = RgbImage::new((COLUMNS * cell_width) as u32, (rows * cell_height) as u32);
    let mut filled = vec![0; rows];
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    for index in 0..dataset.len() {
        let row = dataset.label(index);
        if row >= rows || filled[row] == COLUMNS {
            continue;
        }
        let image = transform.apply(dataset.image(index)?.view(), &mut rng)?;
        let (left, top) = (filled[row] * cell_width, row * cell_height);
        for y in 0..height * ENLARGE {
            for x in 0..width * ENLARGE {
                let color = [0, 1, 2].map(|c| image[[c, y / ENLARGE, x / ENLARGE]]);
                sheet.put_pixel((left + x) as u32, (top + y) as u32, Rgb(color));
            }
        }
        filled[row] += 1;
    }
    sheet.save(out)?;
    println!(
        "{}: {} images in {} classes; wrote {out}",
        dataset.name(),
        dataset.len(),
        dataset.classes().len()
    );
    Ok(())
}
