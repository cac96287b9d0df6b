//! Pictures that are drawn here, as PNG: the first letter of the name of a user who has set no picture, and QR codes.
//!
//! PNG because mobile clients do not show SVG. One bit per pixel needs no compression: 2.2 kB.

use model::Id;

/// Edge in pixels; the letter is 5 by 7 cells.
const SIZE: usize = 128;
const CELL: usize = 12;
const LEFT: usize = (SIZE - 5 * CELL) / 2;
const TOP: usize = (SIZE - 7 * CELL) / 2;

/// Backgrounds that carry a white letter.
const COLOURS: [[u8; 3]; 10] = [
    [166, 33, 92],
    [181, 71, 8],
    [138, 100, 0],
    [77, 117, 15],
    [12, 122, 67],
    [0, 116, 128],
    [21, 94, 163],
    [72, 72, 190],
    [125, 52, 176],
    [92, 92, 92],
];

/// The picture for a name. The id chooses the colour, so that it stays when the name changes.
pub(crate) fn initials(name: &str, id: Id) -> Vec<u8> {
    let letter = name.chars().next().unwrap_or('?').to_ascii_uppercase();
    let glyph = GLYPHS.iter().find(|(c, _)| *c == letter).map_or([0x0e, 0x11, 0x01, 0x06, 0x04, 0x00, 0x04], |g| g.1);
    let sum: usize = id.as_str().bytes().map(usize::from).sum();
    png(glyph, COLOURS[sum % COLOURS.len()])
}

fn png(glyph: [u8; 7], background: [u8; 3]) -> Vec<u8> {
    two_colours(SIZE, [background, [255, 255, 255]], |x, y| is_letter(glyph, x, y))
}

/// Pixels of one cell of a QR code, and cells of its margin (ISO/IEC 18004 wants four).
const QR_CELL: usize = 8;
const QR_MARGIN: usize = 4;
/// Cells of a QR code at most: the picture stays below one deflate block, and a link to a secret needs half.
const QR_CELLS_MAX: usize = 77;

const _: () = assert!(
    (QR_CELLS_MAX + 2 * QR_MARGIN) * QR_CELL * (1 + (QR_CELLS_MAX + 2 * QR_MARGIN) * QR_CELL / 8) <= u16::MAX as usize
);

/// A text as a QR code in a PNG; `None` when it is too long.
pub(crate) fn qr_code(text: &str) -> Option<Vec<u8>> {
    let code = qrcodegen::QrCode::encode_text(text, qrcodegen::QrCodeEcc::Medium).ok()?;
    let cells = usize::try_from(code.size()).ok().filter(|cells| *cells <= QR_CELLS_MAX)?;
    let cell = |at: usize| i32::try_from(at / QR_CELL).unwrap_or(0) - QR_MARGIN as i32;
    let edge = (cells + 2 * QR_MARGIN) * QR_CELL;
    Some(two_colours(edge, [[255, 255, 255], [0, 0, 0]], |x, y| code.get_module(cell(x), cell(y))))
}

/// A square PNG with an edge that is a multiple of 8. `is_set` says where the second colour is.
fn two_colours(size: usize, palette: [[u8; 3]; 2], is_set: impl Fn(usize, usize) -> bool) -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let edge = u32::try_from(size).expect("a small number").to_be_bytes();
    // One bit per pixel, palette.
    chunk(&mut out, b"IHDR", &[&edge[..], &edge, &[1, 3, 0, 0, 0]].concat());
    chunk(&mut out, b"PLTE", &palette.concat());
    let mut rows = Vec::with_capacity(size * (1 + size / 8));
    for y in 0..size {
        rows.push(0); // filter: none
        for byte in 0..size / 8 {
            let bits = (0..8).fold(0u8, |bits, bit| (bits << 1) | u8::from(is_set(byte * 8 + bit, y)));
            rows.push(bits);
        }
    }
    // zlib with one stored block (RFC 1950, RFC 1951 section 3.2.4).
    let len = u16::try_from(rows.len()).expect("the rows fit one stored block");
    let mut data = vec![0x78, 0x01, 0x01];
    data.extend_from_slice(&len.to_le_bytes());
    data.extend_from_slice(&(!len).to_le_bytes());
    data.extend_from_slice(&rows);
    data.extend_from_slice(&adler32(&rows).to_be_bytes());
    chunk(&mut out, b"IDAT", &data);
    chunk(&mut out, b"IEND", &[]);
    out
}

const _: () = assert!(SIZE * (1 + SIZE / 8) <= u16::MAX as usize, "the rows must fit one stored deflate block");

fn is_letter(glyph: [u8; 7], x: usize, y: usize) -> bool {
    let cell = |at: usize, start: usize, cells: usize| at.checked_sub(start).map(|d| d / CELL).filter(|c| *c < cells);
    match (cell(x, LEFT, 5), cell(y, TOP, 7)) {
        (Some(column), Some(row)) => glyph[row] >> (4 - column) & 1 == 1,
        (None, _) | (_, None) => false,
    }
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    out.extend_from_slice(&u32::try_from(data.len()).expect("chunks are small").to_be_bytes());
    let start = out.len();
    out.extend_from_slice(kind);
    out.extend_from_slice(data);
    let sum = crc32(&out[start..]);
    out.extend_from_slice(&sum.to_be_bytes());
}

/// CRC of PNG (ISO 3309), bit by bit: a few kilobytes per picture do not need a table.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % MODULUS;
        (a, (b + a) % MODULUS)
    });
    b << 16 | a
}

/// Letters as seven rows of five bits.
const GLYPHS: [(char, [u8; 7]); 36] = [
    ('0', [0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e]),
    ('1', [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e]),
    ('2', [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f]),
    ('3', [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e]),
    ('4', [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02]),
    ('5', [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e]),
    ('6', [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e]),
    ('7', [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08]),
    ('8', [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e]),
    ('9', [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c]),
    ('A', [0x0e, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11]),
    ('B', [0x1e, 0x11, 0x11, 0x1e, 0x11, 0x11, 0x1e]),
    ('C', [0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e]),
    ('D', [0x1c, 0x12, 0x11, 0x11, 0x11, 0x12, 0x1c]),
    ('E', [0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x1f]),
    ('F', [0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x10]),
    ('G', [0x0e, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0f]),
    ('H', [0x11, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11]),
    ('I', [0x0e, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0e]),
    ('J', [0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0c]),
    ('K', [0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11]),
    ('L', [0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1f]),
    ('M', [0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11]),
    ('N', [0x11, 0x11, 0x19, 0x15, 0x13, 0x11, 0x11]),
    ('O', [0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e]),
    ('P', [0x1e, 0x11, 0x11, 0x1e, 0x10, 0x10, 0x10]),
    ('Q', [0x0e, 0x11, 0x11, 0x11, 0x15, 0x12, 0x0d]),
    ('R', [0x1e, 0x11, 0x11, 0x1e, 0x14, 0x12, 0x11]),
    ('S', [0x0f, 0x10, 0x10, 0x0e, 0x01, 0x01, 0x1e]),
    ('T', [0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04]),
    ('U', [0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e]),
    ('V', [0x11, 0x11, 0x11, 0x11, 0x11, 0x0a, 0x04]),
    ('W', [0x11, 0x11, 0x11, 0x15, 0x15, 0x15, 0x0a]),
    ('X', [0x11, 0x11, 0x0a, 0x04, 0x0a, 0x11, 0x11]),
    ('Y', [0x11, 0x11, 0x11, 0x0a, 0x04, 0x04, 0x04]),
    ('Z', [0x1f, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1f]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksums_are_those_of_the_standards() {
        assert_eq!(crc32(b"IEND"), 0xae42_6082);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn the_picture_is_a_png_of_its_size_and_small() {
        let png = initials("alice", "ybndrfg8ejkmcpqxot1uwisza3".parse().unwrap());
        let size = crate::images::look(std::io::Cursor::new(&png)).unwrap();
        assert_eq!((size.width as usize, size.height as usize), (SIZE, SIZE));
        assert!(png.len() < 2_400, "{} bytes", png.len());
    }
}
