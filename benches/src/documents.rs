//! Files of a mission from a seed: documents as office programs save them, reports, imagery, and how they are edited.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use model::Event;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::corpus::Chat;

/// A text document of an office program.
pub(crate) struct Docx {
    /// Paragraphs; the first words of each are headings now and then.
    paragraphs: Vec<String>,
    media: Vec<u8>,
    /// How often it was saved; stands in the document's properties.
    revision: u32,
}

impl Docx {
    /// With `xml_bytes` of text and markup and `media_bytes` of a picture.
    pub(crate) fn new(seed: u64, xml_bytes: usize, media_bytes: usize) -> Self {
        let (mut chat, _) = Chat::begin(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut paragraphs = Vec::new();
        let mut bytes = 0;
        while bytes < xml_bytes {
            let text = sentences(&mut chat, rng.random_range(1..6));
            bytes += paragraph(&text, paragraphs.len()).len();
            paragraphs.push(text);
        }
        Self { paragraphs, media: noise(seed, media_bytes), revision: 1 }
    }

    /// Replaces one word in the middle, as somebody does who opens, edits and saves.
    pub(crate) fn edit_a_word(&mut self) {
        let middle = self.paragraphs.len() / 2;
        let text = &mut self.paragraphs[middle];
        let word = text.split(' ').find(|word| word.len() > 3).unwrap_or_default().to_owned();
        *text = text.replacen(&word, "Kestrel", 1);
        self.revision += 1;
    }

    /// The container, deflated at zlib's `level`. Word writes at 1 and dates members 1980, LibreOffice at 6;
    /// scripts write at 6 or 9 and date members when they save (`dated`).
    pub(crate) fn save(&self, level: u32, dated: bool) -> Vec<u8> {
        let body: String = self.paragraphs.iter().enumerate().map(|(n, text)| paragraph(text, n)).collect();
        let document = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\r\n<w:document xmlns:w=\"http://schemas.openxmlformats.org/\
             wordprocessingml/2006/main\" xmlns:r=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships\">\
             <w:body>{body}<w:sectPr w:rsidR=\"00A77B3E\"><w:pgSz w:w=\"11906\" w:h=\"16838\"/></w:sectPr></w:body></w:document>"
        );
        let core = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\r\n<cp:coreProperties><dc:creator>S3</dc:creator>\
             <cp:revision>{}</cp:revision><dcterms:modified>2026-09-14T{:02}:12:00Z</dcterms:modified></cp:coreProperties>",
            self.revision,
            4 + self.revision
        );
        let words: usize = self.paragraphs.iter().map(|text| text.split(' ').count()).sum();
        let app =
            format!("<Properties><Words>{words}</Words><TotalTime>{}</TotalTime></Properties>", self.revision * 7);
        let time = if dated { 0x3000 + self.revision as u16 * 61 } else { 0 };
        let mut zip = ZipWriter { level, time, out: Vec::new(), directory: Vec::new(), members: 0 };
        zip.add("[Content_Types].xml", &sheet("Override", 12));
        zip.add("_rels/.rels", &sheet("Relationship", 4));
        zip.add("word/document.xml", document.as_bytes());
        zip.add("word/_rels/document.xml.rels", &sheet("Relationship", 9));
        zip.add("word/media/image1.png", &self.media);
        zip.add("word/theme/theme1.xml", &sheet("a:srgbClr", 120));
        zip.add("word/settings.xml", &sheet("w:rsid", 60));
        zip.add("word/styles.xml", &sheet("w:lsdException", 376));
        zip.add("word/fontTable.xml", &sheet("w:font", 9));
        zip.add("word/webSettings.xml", &sheet("w:div", 3));
        zip.add("docProps/core.xml", core.as_bytes());
        zip.add("docProps/app.xml", app.as_bytes());
        zip.finish()
    }
}

/// A paragraph as Word writes it: runs, each with the session in which it was typed.
fn paragraph(text: &str, number: usize) -> String {
    let session = (number as u32 / 7).wrapping_mul(2_654_435_761) >> 8;
    let style = if number.is_multiple_of(9) { "<w:pStyle w:val=\"Heading2\"/>" } else { "<w:jc w:val=\"both\"/>" };
    let mut out = format!(
        "<w:p w14:paraId=\"{:08X}\" w:rsidR=\"00{session:06X}\" w:rsidRDefault=\"00{session:06X}\">",
        session ^ number as u32
    );
    out += &format!("<w:pPr>{style}<w:rPr><w:lang w:val=\"en-GB\"/></w:rPr></w:pPr>");
    for part in text.split_inclusive(". ") {
        let part = part.replace('&', "&amp;").replace('<', "&lt;");
        out += &format!(
            "<w:r w:rsidR=\"00{session:06X}\"><w:rPr><w:rFonts w:ascii=\"Calibri\" w:hAnsi=\"Calibri\" w:cs=\"Calibri\"/>\
             <w:sz w:val=\"22\"/><w:lang w:val=\"en-GB\"/></w:rPr><w:t xml:space=\"preserve\">{part}</w:t></w:r>"
        );
    }
    out + "</w:p>"
}

/// The other parts of a document: the same elements again and again.
fn sheet(element: &str, times: u32) -> Vec<u8> {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\r\n<root>");
    for n in 0..times {
        let value = n.wrapping_mul(2_654_435_761) >> 12;
        out += &format!("<{element} Id=\"rId{n}\" w:uiPriority=\"{}\" w:val=\"{value:05X}\"/>", n % 99);
    }
    (out + "</root>").into_bytes()
}

/// A report of some `bytes`: lines of a mission.
pub(crate) fn report(seed: u64, bytes: usize) -> Vec<u8> {
    let (mut chat, _) = Chat::begin(seed);
    let mut out = Vec::with_capacity(bytes);
    while out.len() < bytes {
        out.extend_from_slice(sentences(&mut chat, 3).as_bytes());
        out.push(b'\n');
    }
    out.truncate(bytes);
    out
}

/// Words inserted at `places` places, evenly spread.
pub(crate) fn edit_at(content: &[u8], places: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + places * 10);
    for (n, part) in content.chunks(content.len().div_ceil(places + 1)).enumerate() {
        out.extend_from_slice(part);
        out.extend_from_slice(format!(" CORR {n:02} ").as_bytes());
    }
    out
}

/// `new` in place of as many bytes in the middle.
pub(crate) fn replace_middle(content: &[u8], new: &[u8]) -> Vec<u8> {
    let from = (content.len() - new.len()) / 2;
    [&content[..from], new, &content[from + new.len()..]].concat()
}

/// Bytes like those of pictures and video: nothing to gain.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut out);
    out
}

/// Posts of the mission as running text.
fn sentences(chat: &mut Chat, count: usize) -> String {
    let mut out = String::new();
    for _ in 0..count {
        if let Event::Post(post) = chat.post() {
            out += &post.message.replace('\n', " ");
            out += ". ";
        }
    }
    out
}

struct ZipWriter {
    level: u32,
    /// MS-DOS time of the members.
    time: u16,
    out: Vec<u8>,
    directory: Vec<u8>,
    members: u16,
}

impl ZipWriter {
    fn add(&mut self, name: &str, plain: &[u8]) {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(self.level));
        let packed = encoder.write_all(plain).and_then(|()| encoder.finish()).expect("writing to a Vec cannot fail");
        let mut crc = flate2::Crc::new();
        crc.update(plain);
        let mut header = [20, 0, 8, self.time, 33].map(u16::to_le_bytes).concat();
        header.extend([crc.sum(), packed.len() as u32, plain.len() as u32].map(u32::to_le_bytes).concat());
        header.extend([name.len() as u16, 0].map(u16::to_le_bytes).concat());
        self.directory.extend(b"PK\x01\x02\x14\x00");
        self.directory.extend(&header);
        self.directory.extend([0; 10]);
        self.directory.extend((self.out.len() as u32).to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.out.extend(b"PK\x03\x04");
        self.out.extend(&header);
        self.out.extend(name.as_bytes());
        self.out.extend(&packed);
        self.members += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        let at = self.out.len() as u32;
        self.out.extend(&self.directory);
        self.out.extend(b"PK\x05\x06\x00\x00\x00\x00");
        self.out.extend([self.members; 2].map(u16::to_le_bytes).concat());
        self.out.extend([self.directory.len() as u32, at].map(u32::to_le_bytes).concat());
        self.out.extend([0; 2]);
        self.out
    }
}
