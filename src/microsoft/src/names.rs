//! Names of files and folders that SharePoint takes.
//!
//! It refuses some characters, some whole names and long paths (reference 4.4). A name is made fit in one way only, so that
//! the same file gets the same name after a restart: the name is part of what makes an upload happen once.

/// Longest name that is given, in characters. SharePoint's limit of 400 is for the whole decoded path.
pub const NAME_CHARS_MAX: usize = 120;

/// A name that SharePoint takes, as near to this one as can be. Never empty.
pub fn fit(name: &str) -> String {
    let mapped: String = name
        .chars()
        .map(|c| match c {
            '"' | '*' | ':' | '<' | '>' | '?' | '/' | '\\' | '|' => '_',
            // Allowed of late, but they still break addresses and older synchronising clients.
            '#' | '%' => '_',
            c if c.is_control() => '_',
            c => c,
        })
        .collect();
    let trimmed =
        mapped.trim_matches(|c: char| c.is_whitespace()).trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    let mut name = shorten(trimmed);
    let stem = name.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let is_device = ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str())
        || ["COM", "LPT"]
            .iter()
            .any(|d| stem.strip_prefix(d).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit()));
    let lower = name.to_ascii_lowercase();
    if name.is_empty() || is_device || name.starts_with("~$") || lower == "desktop.ini" || lower == ".lock" {
        name.insert(0, '_');
    }
    // Refused anywhere in a name.
    while let Some(at) = name.to_ascii_lowercase().find("_vti_") {
        name.replace_range(at..at + 5, "_vti-");
    }
    name
}

/// Cut in the middle of a long name, so that its ending stays.
fn shorten(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    let ending = match name.rfind('.') {
        Some(dot) if name[dot..].chars().count() <= 12 => &name[dot..],
        Some(_) | None => "",
    };
    let keep = NAME_CHARS_MAX - ending.chars().count();
    let head: String = name.chars().take(keep).collect();
    format!("{}{ending}", head.trim_end_matches(|c: char| c == '.' || c.is_whitespace()))
}

/// A name as one part of a path in an address: everything but unreserved characters is escaped.
pub fn in_path(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sharepoint_refuses_is_made_fit() {
        for (given, fitted) in [
            ("plan.pdf", "plan.pdf"),
            ("a/b\\c:d*e?.txt", "a_b_c_d_e_.txt"),
            (" spaced . ", "spaced"),
            ("CON", "_CON"),
            ("com1.txt", "_com1.txt"),
            ("COM10.txt", "COM10.txt"),
            ("~$draft.docx", "_~$draft.docx"),
            ("my_vti_file", "my_vti-file"),
            ("desktop.ini", "_desktop.ini"),
            ("..", "_"),
            ("", "_"),
            ("صورة.png", "صورة.png"),
        ] {
            assert_eq!(fit(given), fitted, "{given}");
        }
        let long = fit(&format!("{}.tar.gz", "x".repeat(300)));
        assert_eq!(long.chars().count(), NAME_CHARS_MAX);
        assert!(long.ends_with(".gz"));
    }

    proptest::proptest! {
        #[test]
        fn a_fitted_name_fits_already(name in "\\PC{0,200}") {
            let once = fit(&name);
            proptest::prop_assert_eq!(fit(&once), once.clone());
            proptest::prop_assert!(!once.is_empty() && !once.contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|']));
        }
    }

    #[test]
    fn a_part_of_a_path_stays_one() {
        assert_eq!(in_path("a b/ü%.txt"), "a%20b%2F%C3%BC%25.txt");
    }
}
