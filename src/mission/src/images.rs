//! Pictures made of pictures: previews, thumbnails, and what a picture is before it is decoded.
//!
//! Whoever uploads chooses the bytes, so every size is bounded before memory is asked for, and a decoder that panics makes no
//! picture instead of a failed request.

use std::io::{BufRead, Cursor, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::gif::{GifDecoder, GifEncoder, Repeat};
use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, Frame, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use model::event::EmojiState;

/// Most pixels that are decoded: 7680 x 4320, as the original. A progressive JPEG of that takes about 330 MB while it is
/// decoded, so callers decode one at a time.
pub(crate) const PIXELS_MAX: u64 = 7_680 * 4_320;
/// Most bytes that a decoder may ask for at once, the picture itself among them: 4 bytes for each pixel and some room.
const ALLOC_MAX: u64 = PIXELS_MAX * 4 + 32 * 1024 * 1024;
/// Longest edge. What is longer is no photograph.
const EDGE_MAX: u32 = 32_768;

/// Sizes of the original.
const PREVIEW_WIDTH: u32 = 1_920;
const THUMBNAIL_WIDTH: u32 = 120;
const THUMBNAIL_HEIGHT: u32 = 100;
const MINI_EDGE: u32 = 16;
const JPEG_QUALITY: u8 = 90;

/// What is known of a picture without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) format: ImageFormat,
    /// As it is shown: turned by its EXIF orientation.
    pub(crate) width: u32,
    pub(crate) height: u32,
    orientation: Orientation,
}

/// A picture that was made, with its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) bytes: Vec<u8>,
    pub(crate) format: ImageFormat,
}

/// What clients show of a picture.
#[derive(Clone, Debug)]
pub(crate) struct Previews {
    pub(crate) preview: Made,
    pub(crate) thumbnail: Made,
    /// JPEG of 16 by 16 pixels.
    pub(crate) mini: Vec<u8>,
}

/// Formats that are decoded; the MIME types are those of uploads.
const FORMATS: [(ImageFormat, &str); 5] = [
    (ImageFormat::Jpeg, "image/jpeg"),
    (ImageFormat::Png, "image/png"),
    (ImageFormat::Gif, "image/gif"),
    (ImageFormat::WebP, "image/webp"),
    (ImageFormat::Bmp, "image/bmp"),
];

/// Will [`previews`] make something of a file of this type and size? It may still turn out not to.
pub(crate) fn is_previewable(mime_type: &str, width: u32, height: u32) -> bool {
    FORMATS.iter().any(|(_, mime)| *mime == mime_type) && width > 0 && height > 0 && fits(width, height)
}

fn fits(width: u32, height: u32) -> bool {
    width <= EDGE_MAX && height <= EDGE_MAX && u64::from(width) * u64::from(height) <= PIXELS_MAX
}

/// Reads the head of a picture; `None` for what is none or of another format.
pub(crate) fn look(source: impl BufRead + Seek) -> Option<Look> {
    guarded(|| {
        let (format, mut decoder) = open(source)?;
        let (width, height) = decoder.dimensions();
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let turned = matches!(
            orientation,
            Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
        );
        let (width, height) = if turned { (height, width) } else { (width, height) };
        Some(Look { format, width, height, orientation })
    })
}

/// Decodes a picture upright; `None` for what is none, too large or broken. Of an animation the first frame.
pub(crate) fn decode(bytes: &[u8]) -> Option<DynamicImage> {
    let head = look(Cursor::new(bytes))?;
    if !fits(head.width, head.height) {
        return None;
    }
    guarded(|| {
        let (_, decoder) = open(Cursor::new(bytes))?;
        let mut picture = DynamicImage::from_decoder(decoder).ok()?;
        picture.apply_orientation(head.orientation);
        Some(picture)
    })
}

/// Makes what clients show of a picture; `None` where nothing can be made.
pub(crate) fn previews(bytes: &[u8]) -> Option<Previews> {
    let is_png = look(Cursor::new(bytes))?.format == ImageFormat::Png;
    let format = if is_png { ImageFormat::Png } else { ImageFormat::Jpeg };
    let picture = decode(bytes)?;
    guarded(|| {
        let height = |width: u32| scaled(picture.height(), width, picture.width());
        let preview = match picture.width() > PREVIEW_WIDTH {
            true => picture.thumbnail_exact(PREVIEW_WIDTH, height(PREVIEW_WIDTH)),
            false => picture.clone(),
        };
        let (width, height) = match picture.width() > picture.height() {
            true => (THUMBNAIL_WIDTH, height(THUMBNAIL_WIDTH)),
            false => (scaled(picture.width(), THUMBNAIL_HEIGHT, picture.height()), THUMBNAIL_HEIGHT),
        };
        let thumbnail = preview.thumbnail_exact(width, height);
        let mini = encode(&thumbnail.thumbnail_exact(MINI_EDGE, MINI_EDGE), ImageFormat::Jpeg)?.bytes;
        Some(Previews { preview: encode(&preview, format)?, thumbnail: encode(&thumbnail, format)?, mini })
    })
}

/// Edge of an emoji as it is stored, and as it may be sent.
const EMOJI_EDGE: u32 = 128;
const EMOJI_SENT_EDGE_MAX: u32 = 1_028;
/// Pixels of all frames of an animation together that are made small: some two seconds of work.
const ANIMATION_PIXELS_MAX: u64 = 64_000_000;

/// Why a picture is no emoji.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EmojiError {
    NoPicture,
    TooLarge,
    Broken,
}

/// The picture of an emoji: as it is if it is small, else made small. Animations stay animations.
pub(crate) fn emoji(bytes: &[u8]) -> Result<Vec<u8>, EmojiError> {
    let head = look(Cursor::new(bytes)).ok_or(EmojiError::NoPicture)?;
    let is_large = head.width > EMOJI_SENT_EDGE_MAX || head.height > EMOJI_SENT_EDGE_MAX;
    if is_large || bytes.len() > EmojiState::IMAGE_BYTES_MAX || head.format == ImageFormat::Bmp {
        return Err(if is_large { EmojiError::TooLarge } else { EmojiError::NoPicture });
    }
    if head.width <= EMOJI_EDGE && head.height <= EMOJI_EDGE {
        return Ok(bytes.to_vec());
    }
    let small = match head.format == ImageFormat::Gif {
        true => guarded(|| small_animation(bytes)),
        false => decode(bytes)
            .and_then(|picture| encode(&picture.thumbnail(EMOJI_EDGE, EMOJI_EDGE), ImageFormat::Png))
            .map(|made| made.bytes),
    };
    small.filter(|small| small.len() <= EmojiState::IMAGE_BYTES_MAX).ok_or(EmojiError::Broken)
}

/// The MIME type of what is a picture of an emoji.
pub(crate) fn emoji_mime(bytes: &[u8]) -> Option<&'static str> {
    let head = look(Cursor::new(bytes)).filter(|head| head.format != ImageFormat::Bmp)?;
    let fits = head.width.max(head.height) <= EMOJI_EDGE;
    FORMATS.iter().find(|(format, _)| *format == head.format).map(|(_, mime)| *mime).filter(|_| fits)
}

fn small_animation(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut small = Vec::new();
    let mut encoder = GifEncoder::new(&mut small);
    encoder.set_repeat(Repeat::Infinite).ok()?;
    let mut pixels = 0;
    for frame in GifDecoder::new(Cursor::new(bytes)).ok()?.into_frames() {
        let frame = frame.ok()?;
        pixels += u64::from(frame.buffer().width()) * u64::from(frame.buffer().height());
        if pixels > ANIMATION_PIXELS_MAX {
            return None;
        }
        let delay = frame.delay();
        let picture = DynamicImage::from(frame.into_buffer()).thumbnail(EMOJI_EDGE, EMOJI_EDGE);
        encoder.encode_frame(Frame::from_parts(picture.to_rgba8(), 0, 0, delay)).ok()?;
    }
    drop(encoder);
    Some(small)
}

/// Encodes as PNG or JPEG; a JPEG has no transparency, so what shines through is white.
pub(crate) fn encode(picture: &DynamicImage, format: ImageFormat) -> Option<Made> {
    let mut bytes = Vec::new();
    if format == ImageFormat::Png {
        picture.write_to(&mut Cursor::new(&mut bytes), format).ok()?;
    } else {
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode_image(&on_white(picture)).ok()?;
    }
    Some(Made { bytes, format })
}

fn on_white(picture: &DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.to_rgb8();
    }
    let with_alpha = picture.to_rgba8();
    RgbImage::from_fn(with_alpha.width(), with_alpha.height(), |x, y| {
        let [r, g, b, a] = with_alpha.get_pixel(x, y).0;
        let over = |c: u8| {
            let sum = u32::from(c) * u32::from(a) + 255 * (255 - u32::from(a));
            u8::try_from(sum / 255).unwrap_or(u8::MAX)
        };
        image::Rgb([over(r), over(g), over(b)])
    })
}

fn scaled(length: u32, to: u32, of: u32) -> u32 {
    let exact = u64::from(length) * u64::from(to) / u64::from(of.max(1));
    u32::try_from(exact).unwrap_or(EDGE_MAX).clamp(1, EDGE_MAX)
}

fn open<'a>(source: impl BufRead + Seek + 'a) -> Option<(ImageFormat, impl ImageDecoder + 'a)> {
    let mut reader = ImageReader::new(source).with_guessed_format().ok()?;
    let format = reader.format().filter(|format| FORMATS.iter().any(|(known, _)| known == format))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(EDGE_MAX);
    limits.max_image_height = Some(EDGE_MAX);
    limits.max_alloc = Some(ALLOC_MAX);
    reader.limits(limits);
    Some((format, reader.into_decoder().ok()?))
}

fn guarded<T>(work: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::warn!("a picture could not be decoded: the decoder gave up");
        None
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Red on the left, blue on the right.
    pub(crate) fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let colours = RgbImage::from_fn(width, height, |x, _| {
            if x < width / 2 { image::Rgb([220, 0, 0]) } else { image::Rgb([0, 0, 220]) }
        });
        let mut bytes = Vec::new();
        DynamicImage::from(colours).write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    /// A JPEG with an EXIF segment that says how it is to be turned.
    pub(crate) fn turned(width: u32, height: u32, orientation: u8) -> Vec<u8> {
        let plain = picture(width, height, ImageFormat::Jpeg);
        let tiff =
            [&b"Exif\0\0MM\0*\0\0\0\x08\0\x01"[..], &[0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0]]
                .concat();
        let len = u16::try_from(tiff.len() + 2).unwrap().to_be_bytes();
        [&plain[..2], &[0xff, 0xe1], &len, &tiff, &plain[2..]].concat()
    }

    #[test]
    fn every_format_gets_previews_of_the_originals_sizes() {
        for (format, mime) in FORMATS {
            let bytes = picture(2_400, 1_200, format);
            let head = look(Cursor::new(&bytes)).unwrap();
            assert_eq!((head.format, head.width, head.height), (format, 2_400, 1_200));
            assert!(is_previewable(mime, head.width, head.height));
            let made = previews(&bytes).unwrap();
            let size = |made: &Made| {
                let look = look(Cursor::new(&made.bytes)).unwrap();
                (look.format, look.width, look.height)
            };
            let kind = if format == ImageFormat::Png { ImageFormat::Png } else { ImageFormat::Jpeg };
            assert_eq!(size(&made.preview), (kind, 1_920, 960));
            assert_eq!(size(&made.thumbnail), (kind, 120, 60));
            assert_eq!(size(&Made { bytes: made.mini, format }), (ImageFormat::Jpeg, 16, 16));
        }
        let small = previews(&picture(40, 80, ImageFormat::Png)).unwrap();
        assert_eq!(look(Cursor::new(&small.preview.bytes)).unwrap().width, 40);
        assert_eq!(look(Cursor::new(&small.thumbnail.bytes)).unwrap().width, 50);
    }

    #[test]
    fn a_turned_photograph_is_shown_upright() {
        let bytes = turned(64, 32, 6);
        let head = look(Cursor::new(&bytes)).unwrap();
        assert_eq!((head.width, head.height), (32, 64));
        let preview = decode(&previews(&bytes).unwrap().preview.bytes).unwrap().to_rgb8();
        assert_eq!(preview.dimensions(), (32, 64));
        // A quarter turn clockwise takes the left side up.
        assert!(preview.get_pixel(16, 8).0[0] > 150 && preview.get_pixel(16, 56).0[2] > 150);
    }

    #[test]
    fn what_claims_to_be_huge_is_not_decoded() {
        // A picture of 60,000 x 60,000 in 200 bytes, as a decompression bomb has it: only its head is read.
        let mut png = picture(4, 4, ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        let sum = crc32(&png[12..29]).to_be_bytes();
        png[29..33].copy_from_slice(&sum);
        assert!(decode(&png).is_none() && previews(&png).is_none());
        let mut gif = picture(4, 4, ImageFormat::Gif);
        gif[6..10].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
        assert!(decode(&gif).is_none());
        assert!(!is_previewable("image/png", 60_000, 60_000) && !is_previewable("image/png", 10_000, 10_000));
        assert!(!is_previewable("image/svg+xml", 10, 10) && !is_previewable("image/png", 0, 0));
        // White noise of the largest size that fits would be decoded.
        assert!(fits(7_680, 4_320) && !fits(7_681, 4_320));
    }

    #[test]
    fn no_bytes_make_a_decoder_fail_the_caller() {
        for (format, _) in FORMATS {
            let whole = picture(24, 24, format);
            for at in 0..whole.len().min(400) {
                let mut broken = whole.clone();
                broken[at] ^= 0xff;
                let _ = previews(&broken);
                let _ = previews(&whole[..at]);
            }
        }
        assert!(look(Cursor::new(b"plain text")).is_none());
    }

    #[test]
    fn an_emoji_is_made_small_and_an_animation_stays_one() {
        for (format, edge, stays) in
            [(ImageFormat::Png, 128, true), (ImageFormat::Jpeg, 300, false), (ImageFormat::WebP, 1_028, false)]
        {
            let bytes = picture(edge, edge / 2, format);
            let small = emoji(&bytes).unwrap();
            assert_eq!(small == bytes, stays);
            assert!(emoji_mime(&small).is_some());
        }
        let mut animation = Vec::new();
        let mut encoder = GifEncoder::new(&mut animation);
        for colour in [0, 255, 80] {
            let frame = image::RgbaImage::from_pixel(200, 100, image::Rgba([colour, 0, 0, 255]));
            encoder.encode_frame(Frame::new(frame)).unwrap();
        }
        drop(encoder);
        let small = emoji(&animation).unwrap();
        let frames = GifDecoder::new(Cursor::new(&small)).unwrap().into_frames().collect_frames().unwrap();
        assert_eq!((frames.len(), frames[0].buffer().dimensions()), (3, (128, 64)));
        assert_eq!(emoji_mime(&small), Some("image/gif"));
        assert_eq!(emoji(b"text"), Err(EmojiError::NoPicture));
        assert_eq!(emoji(&picture(1_029, 4, ImageFormat::Png)), Err(EmojiError::TooLarge));
        let cut = picture(600, 600, ImageFormat::Png);
        assert_eq!(emoji(&cut[..cut.len() / 2]), Err(EmojiError::Broken));
        assert_eq!(emoji_mime(&picture(129, 4, ImageFormat::Png)), None);
    }

    #[test]
    fn what_is_transparent_becomes_white_in_a_jpeg() {
        let clear = DynamicImage::from(image::RgbaImage::from_pixel(8, 8, image::Rgba([0, 0, 0, 0])));
        let jpeg = encode(&clear, ImageFormat::Jpeg).unwrap();
        assert!(decode(&jpeg.bytes).unwrap().to_rgb8().get_pixel(3, 3).0.iter().all(|c| *c > 250));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 })
        })
    }
}
