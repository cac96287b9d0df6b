//! From text to the words of the index, the same way for what is written and for what is asked.
//!
//! ```text
//! "Größe der Lage, Ёлка أحمد 作戦計画"  ->  grosse der lage елка احمد 作戦 戦計 計画 画
//! ```
//!
//! Letters are compared without case, width and accents. Scripts that put no blanks between words become pairs of
//! neighbouring characters (and the last one alone), so that any part of a sentence is found as a phrase of pairs.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Longest word that is kept, in bytes. Longer runs (encoded data, mostly) are found by their beginning.
const WORD_BYTES_MAX: usize = 128;
/// Words of one text that are kept: a post of 16,383 characters has fewer, props cannot add any.
const WORDS_MAX: usize = 20_000;

/// Changes with the rules of this file: an index made by other rules is made anew when the store opens.
pub(super) const RULES: i64 = 1;

/// A piece of a text between blanks and punctuation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Run {
    /// A word of a script that separates words.
    Word(String),
    /// Characters of a script that does not.
    Chain(Vec<char>),
}

/// The words of a text for the index, separated by blanks.
pub(super) fn index_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut words = 0;
    for run in runs(text) {
        for word in words_of(&run, true) {
            words += 1;
            if words > WORDS_MAX {
                return out;
            }
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(&word);
        }
    }
    out
}

/// Hashtags as the index holds them: whole, with the sign, without case and accents.
pub(super) fn index_tags(hashtags: &str) -> String {
    hashtags.split_whitespace().map(tag).collect::<Vec<_>>().join(" ")
}

/// One hashtag as the index holds it.
pub(super) fn tag(hashtag: &str) -> String {
    let plain: String = hashtag.chars().filter(|c| !c.is_whitespace() && !c.is_control() && *c != '"').collect();
    cut(&fold(&plain)).to_owned()
}

/// What a term of a query looks for: words that stand next to each other. Empty when it holds nothing that is indexed.
/// The second value says that the last word only has to begin so.
pub(super) fn query_words(term: &str, prefix: bool) -> (Vec<String>, bool) {
    let runs = runs(term);
    let mut found = Vec::new();
    let mut prefix = prefix;
    let last = runs.len().saturating_sub(1);
    for (n, run) in runs.iter().enumerate() {
        // Within a text the last character of a chain also stands alone; at the end of a phrase it need not.
        found.extend(words_of(run, n < last));
        if n == last && matches!(run, Run::Chain(chain) if chain.len() == 1) {
            // One character: the first of some pair, or alone at the end of a chain.
            prefix = true;
        }
    }
    (found, prefix)
}

/// What is looked for in names of users and channels, for [`name_matches`].
pub(crate) fn name_term(term: &str) -> String {
    fold(term.trim().trim_start_matches(['@', '~']))
}

/// Does the name, or a word of it, begin so? `term` comes from [`name_term`].
pub(super) fn name_matches(term: &str, name: &str) -> bool {
    let name = fold(name);
    let is_start = |at: usize| !name[..at].chars().next_back().is_some_and(char::is_alphanumeric);
    let unspaced = term.chars().next().is_some_and(is_unspaced);
    name.starts_with(term) || name.match_indices(term).any(|(at, _)| unspaced || is_start(at))
}

fn words_of(run: &Run, with_last: bool) -> Vec<String> {
    match run {
        Run::Word(word) => vec![cut(word).to_owned()],
        Run::Chain(chain) if chain.len() == 1 => vec![chain[0].to_string()],
        Run::Chain(chain) => {
            let pairs = chain.windows(2).map(|pair| pair.iter().collect());
            let alone = chain.last().filter(|_| with_last).map(char::to_string);
            pairs.chain(alone).collect()
        }
    }
}

fn cut(word: &str) -> &str {
    let mut end = word.len().min(WORD_BYTES_MAX);
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    &word[..end]
}

fn runs(text: &str) -> Vec<Run> {
    let mut found: Vec<Run> = Vec::new();
    let mut inside = false;
    for c in fold(text).chars() {
        if is_unspaced(c) {
            match found.last_mut() {
                Some(Run::Chain(chain)) if inside => chain.push(c),
                Some(Run::Chain(_) | Run::Word(_)) | None => found.push(Run::Chain(vec![c])),
            }
            inside = true;
        } else if c.is_alphanumeric() || (inside && is_combining_mark(c)) {
            match found.last_mut() {
                Some(Run::Word(word)) if inside => word.push(c),
                Some(Run::Chain(_) | Run::Word(_)) | None => found.push(Run::Word(c.to_string())),
            }
            inside = true;
        } else {
            inside = false;
        }
    }
    found
}

/// Without case, width and accents. What an accent tells apart as a letter of its own (й) stays.
fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.nfkd().flat_map(char::to_lowercase) {
        if is_short_i(c, &folded) || !is_accent(c) {
            match c {
                'ß' => folded.push_str("ss"),
                'æ' => folded.push_str("ae"),
                'œ' => folded.push_str("oe"),
                'ø' => folded.push('o'),
                'ł' => folded.push('l'),
                'đ' => folded.push('d'),
                'ı' => folded.push('i'),
                'ς' => folded.push('σ'),
                // Arabic and Persian letters that keyboards and writers interchange.
                'ى' | 'ی' => folded.push('ي'),
                'ة' => folded.push('ه'),
                'ک' => folded.push('ك'),
                // Arabic-Indic digits.
                '\u{660}'..='\u{669}' => folded.push(digit(c, 0x660)),
                '\u{6f0}'..='\u{6f9}' => folded.push(digit(c, 0x6f0)),
                other => folded.push(other),
            }
        }
    }
    folded.nfc().collect()
}

/// The breve that makes й of и.
fn is_short_i(c: char, before: &str) -> bool {
    c == '\u{306}' && before.ends_with('и')
}

fn digit(c: char, zero: u32) -> char {
    char::from_digit(u32::from(c) - zero, 10).expect("the range has ten digits")
}

/// Marks that a reader may leave out: accents, vowel points, the Arabic lengthening stroke. The marks of Indic scripts are
/// vowels and stay.
fn is_accent(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{487}' | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}'..='\u{5c2}'
        | '\u{5c4}'..='\u{5c5}' | '\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}'
        | '\u{6d6}'..='\u{6dc}' | '\u{6df}'..='\u{6e4}' | '\u{6e7}'..='\u{6e8}' | '\u{6ea}'..='\u{6ed}'
        | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{200b}'..='\u{200f}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' | '\u{feff}')
}

/// Scripts without blanks between words: Han, Kana, Hangul (whose particles cling to words), Thai, Lao, Khmer, Burmese.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3005}'..='\u{3007}'
        | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
        && (c.is_alphanumeric() || is_combining_mark(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lose_case_width_and_accents_in_every_script() {
        for (text, words) in [
            ("Größe der Lage!", "grosse der lage"),
            ("GRÖSSE Ça déjà-vu Łódź", "grosse ca deja vu lodz"),
            ("Ёлка ЙОД подъезд", "елка йод подъезд"),
            ("أَحْمَد في المدينةِ", "احمد في المدينه"),
            ("الـــقـــوات ٣٤", "القوات 34"),
            ("ΟΔΥΣΣΕΎΣ οδυσσεύς", "οδυσσευσ οδυσσευσ"),
            ("ＦＵＬＬ ﬁre", "full fire"),
            ("שָׁלוֹם", "שלום"),
            ("हिन्दी में", "हिन्दी में"),
            ("a@b.example #tag 10:30", "a b example tag 10 30"),
        ] {
            assert_eq!(index_words(text), words, "{text}");
        }
    }

    #[test]
    fn unspaced_scripts_become_pairs_and_any_part_is_a_phrase_of_them() {
        assert_eq!(index_words("作戦計画 ok"), "作戦 戦計 計画 画 ok");
        assert_eq!(index_words("보고서를 v2版"), "보고 고서 서를 를 v2 版");
        for (term, words, prefix) in [
            ("戦計", vec!["戦計"], false),
            ("計画", vec!["計画"], false),
            ("画", vec!["画"], true),
            ("作戦計画", vec!["作戦", "戦計", "計画"], false),
            ("版2", vec!["版", "2"], false),
        ] {
            assert_eq!(query_words(term, false), (words.iter().map(|w| (*w).to_owned()).collect(), prefix), "{term}");
        }
    }

    #[test]
    fn a_very_long_word_and_nothing_at_all_are_bounded() {
        assert_eq!(index_words(&"é".repeat(5_000)).len(), WORD_BYTES_MAX);
        assert_eq!(index_words(" !?… \u{301}"), "");
        assert_eq!(query_words("!!", true), (Vec::new(), true));
        assert_eq!(index_words(&"a ".repeat(30_000)).split(' ').count(), WORDS_MAX);
    }

    #[test]
    fn names_are_found_by_the_beginning_of_any_word_in_any_script() {
        for (term, name) in [
            ("@jos", "José García"),
            ("garc", "José García"),
            ("иван", "Иван Петров"),
            ("ПЕТ", "Иван Петров"),
            ("محم", "أحمد مُحمد"),
            ("计划", "作战计划"),
            ("b.smi", "b.smith"),
            ("smi", "b.smith"),
            ("", "anybody"),
        ] {
            assert!(name_matches(&name_term(term), name), "{term} {name}");
        }
        assert!(!name_matches(&name_term("mith"), "b.smith") && !name_matches(&name_term("%"), "b.smith"));
    }

    #[test]
    fn hashtags_stay_whole() {
        assert_eq!(index_tags("#Größe-1 #ops_b"), "#grosse-1 #ops_b");
    }
}
