//! Maps of another size.

use cp_net::{Resize, ResizeMode};
use tch::{TchError, Tensor};

use super::{along, select, simple};

simple! {
    Resize: |op, x, _, _| resize(x, op);
}

/// Each value from the nearest pixel or linear between two, along one spatial axis after the other.
///
/// # Shapes
/// `x`: `[B, C, H, …]`; result: `[B, C, H′, …]`.
fn resize(x: &Tensor, op: &Resize) -> Result<Tensor, TchError> {
    let size = x.size();
    let taps: Vec<Vec<[(usize, f64); 2]>> =
        (2..size.len()).map(|axis| op.taps(axis - 2, size[axis] as usize)).collect();
    // Where libtorch's own comes to the same it is taken: several times faster than picking pixels, and it keeps the layout.
    if let [rows, columns] = &taps[..] {
        let output = [rows.len() as i64, columns.len() as i64];
        match op.mode {
            ResizeMode::Nearest if is_torchs(rows, size[2]) && is_torchs(columns, size[3]) => {
                return x.f_upsample_nearest2d(output, None, None);
            }
            ResizeMode::Nearest => {}
            ResizeMode::Linear => {
                let torchs = |corners: &bool| {
                    is_torchs_linear(rows, size[2], *corners)
                        && is_torchs_linear(columns, size[3], *corners)
                };
                if let Some(corners) = [false, true].into_iter().find(torchs) {
                    return x.f_upsample_bilinear2d(output, corners, None, None);
                }
            }
        }
    }
    let mut map = x.shallow_clone();
    for (axis, taps) in taps.iter().enumerate() {
        let axis = axis + 2;
        let stays = |(at, [first, _]): (usize, &[(usize, f64); 2])| *first == (at, 1.0);
        if taps.len() as i64 == size[axis] && taps.iter().enumerate().all(stays) {
            continue;
        }
        let part = |which: usize| {
            let (pixels, weights): (Vec<usize>, Vec<f64>) =
                taps.iter().map(|tap| tap[which]).unzip();
            let picked = select(&map, axis, &pixels)?;
            if weights.iter().all(|&weight| weight >= 1.0) {
                return Ok(picked);
            }
            picked.f_mul(&along(axis, &weights, x)?)
        };
        let first = part(0)?;
        let one = taps.iter().all(|[_, (_, weight)]| *weight == 0.0);
        map = if one { first } else { first.f_add(&part(1)?)? };
    }
    Ok(map)
}

/// Whether libtorch's nearest pixels, ⌊i · n / n′⌋ in the arithmetic of f32 or f64, are these.
fn is_torchs(taps: &[[(usize, f64); 2]], size: i64) -> bool {
    let new = taps.len();
    let (single, double) = (size as f32 / new as f32, size as f64 / new as f64);
    taps.iter().enumerate().all(|(at, [(pixel, _), _])| {
        (at as f32 * single) as usize == *pixel && (at as f64 * double) as usize == *pixel
    })
}

/// Whether libtorch's linear interpolation is between these pixels, with or without `corners` aligned: at positions
/// (i + ½) · n / n′ − ½ or i · (n − 1) / (n′ − 1), which it computes in f32 for values of f32, and not before the first pixel nor
/// behind the last.
fn is_torchs_linear(taps: &[[(usize, f64); 2]], size: i64, corners: bool) -> bool {
    let new = taps.len();
    let scale = match corners {
        false => size as f32 / new as f32,
        true if new > 1 => (size - 1) as f32 / (new - 1) as f32,
        true => 0.0,
    };
    taps.iter().enumerate().all(|(at, [(pixel, _), (_, share)])| {
        let at = at as f32;
        let position = if corners { at * scale } else { ((at + 0.5) * scale - 0.5).max(0.0) };
        let position = f64::from(position).min(size as f64 - 1.0);
        // The interpolation is continuous: so little of a pixel is less than the tests let through.
        (position - (*pixel as f64 + share)).abs() <= 1e-6
    })
}
