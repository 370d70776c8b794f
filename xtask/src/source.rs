//! Telling the code of a Rust file from its comments and literals.
//!
//! It knows just enough of the language for that: comments (nested ones too), strings (raw ones
//! too) and characters. A file that does not compile gives some answer, never an error.

/// A Rust file, its lines kept in their places.
pub(crate) struct Source {
    /// The code alone: comments and literals are blanks.
    pub(crate) code: String,
    /// The text of the comments on each line, empty where there is none.
    pub(crate) comments: Vec<String>,
}

enum Kind {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// Reads a file's text.
    pub(crate) fn parse(text: &str) -> Self {
        let mut source = Self { code: String::with_capacity(text.len()), comments: Vec::new() };
        source.comments.push(String::new());
        let mut rest = text;
        while !rest.is_empty() {
            let (kind, len) = first_token(rest);
            let (token, after) = rest.split_at(len);
            source.push(&kind, token);
            rest = after;
        }
        source
    }

    fn push(&mut self, kind: &Kind, token: &str) {
        for character in token.chars() {
            let blank = character == '\n' || matches!(kind, Kind::Code);
            self.code.push(if blank { character } else { ' ' });
            if character == '\n' {
                self.comments.push(String::new());
            } else if let (Kind::Comment, Some(comment)) = (kind, self.comments.last_mut()) {
                comment.push(character);
            }
        }
    }
}

/// Whether a character may stand in an identifier.
pub(crate) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The kind and the length in bytes of the token that a text begins with; it has one.
fn first_token(text: &str) -> (Kind, usize) {
    let word = text.find(|character| !is_word(character)).unwrap_or(text.len());
    if text.starts_with("//") {
        (Kind::Comment, text.find('\n').unwrap_or(text.len()))
    } else if text.starts_with("/*") {
        (Kind::Comment, block_comment(text))
    } else if text.starts_with('"') {
        (Kind::Literal, quoted(text, '"'))
    } else if text.starts_with('\'') {
        character_or_lifetime(text)
    } else if matches!(&text[..word], "r" | "br" | "cr") {
        match raw_string(&text[word..]) {
            Some(len) => (Kind::Literal, word + len),
            None => (Kind::Code, word),
        }
    } else {
        (Kind::Code, word.max(text.chars().next().map_or(1, char::len_utf8)))
    }
}

/// The length of a block comment, with those nested in it.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(found) = text[at..].find(['/', '*']) {
        at += found;
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of a literal with escapes, from its first quote to its last.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + quote.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// A quote begins a character (`'x'`, `'\n'`) or a lifetime (`'x`).
fn character_or_lifetime(text: &str) -> (Kind, usize) {
    let mut characters = text.chars().skip(1);
    match (characters.next(), characters.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => (Kind::Literal, quoted(text, '\'')),
        _ => (Kind::Code, 1),
    }
}

/// The length of what follows the `r` of a raw string, or nothing if it is not one (`r#type`).
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.len() - text.trim_start_matches('#').len();
    let body = text[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", &text[..hashes]);
    Some(body.find(&end).map_or(text.len(), |at| hashes + 1 + at + end.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        let words = Source::parse(text).code;
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_are_not_code() {
        assert_eq!(code("a // b\nc /* d /* e */ f */ g\n/// h\n//! i\nj"), "a c g j");
        assert_eq!(Source::parse("a // b\nc /* d\ne */ f").comments, ["// b", "/* d", "e */"]);
    }

    #[test]
    fn strings_are_not_code() {
        assert_eq!(code(r#"a "b \" // c" d"#), "a d");
        assert_eq!(code("a r\"b\\\" c br##\"d\"# e\"## f c\"g\" h"), "a c f c h");
        assert_eq!(code("r#type r #x"), "r#type r #x");
        assert_eq!(code("bar\"x\" y"), "bar y");
    }

    #[test]
    fn a_quote_is_told_from_a_lifetime() {
        assert_eq!(code(r#"'"' a '\'' b '\u{1F600}' c b'/' d"#), "a b c b d");
        assert_eq!(code("fn f<'a>(x: &'a str) { '\"' }"), "fn f<'a>(x: &'a str) { }");
        assert_eq!(code("'outer: loop { break 'outer }"), "'outer: loop { break 'outer }");
    }

    #[test]
    fn lines_stay_in_their_places() {
        let text = "a\n\"b\nc\" d\n/* e\n*/ f\n";
        let source = Source::parse(text);
        let lines: Vec<_> = source.code.lines().map(str::trim).collect();
        assert_eq!(lines, ["a", "", "d", "", "f"]);
        assert_eq!(source.comments.len(), 6);
    }

    #[test]
    fn a_file_cut_anywhere_is_read_to_its_end() {
        let text = "let s = r#\"é\"#; /* ü /* */ */ 'ß' \"\\\"\" 'life // end";
        for (at, _) in text.char_indices() {
            let source = Source::parse(&text[..at]);
            assert_eq!(source.code.chars().count(), text[..at].chars().count());
        }
    }
}
