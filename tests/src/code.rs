//! Just enough of Rust's lexical structure to tell code from comments and literals, and to find functions.
//!
//! Refuses nothing: text that is no Rust gives nonsense, not a panic.

/// A source text, split.
pub struct Code {
    /// The text with comments and the insides of literals blanked; every line keeps its number.
    pub code: String,
    /// The text with everything but comments blanked.
    pub comments: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`, from 1.
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
}

/// What the reader is inside of.
enum Inside {
    Code,
    LineComment,
    /// With its depth: they nest.
    BlockComment(usize),
    Text,
    /// With its number of hashes.
    RawText(usize),
}

impl Code {
    /// Splits a text.
    pub fn read(text: &str) -> Code {
        Reader { chars: text.chars().collect(), at: 0, code: String::new(), comments: String::new() }.run()
    }

    /// The code before the first `#[cfg(test)]` module.
    pub fn without_tests(&self) -> &str {
        let cut = ["#[cfg(test)]\nmod ", "#[cfg(test)]\npub(crate) mod ", "#[cfg(any(test"];
        let end = cut.iter().filter_map(|c| self.code.find(c)).min().unwrap_or(self.code.len());
        &self.code[..end]
    }

    /// Every function with a body.
    pub fn functions(&self) -> Vec<Function> {
        let bytes = self.code.as_bytes();
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
            let name: String = self.code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if word_before || name.is_empty() {
                continue;
            }
            if let Some(end) = body_end(&self.code[at..]) {
                let line = self.code[..at].matches('\n').count() + 1;
                let lines = self.code[at..at + end].matches('\n').count() + 1;
                found.push(Function { name, line, lines });
            }
        }
        found
    }
}

/// Where the body that follows ends; none if a `;` comes before any brace.
fn body_end(code: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut brackets = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' if depth == 0 => brackets += 1,
            ')' | ']' if depth == 0 => brackets = brackets.saturating_sub(1),
            ';' if depth == 0 && brackets == 0 => return None,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => (),
        }
    }
    None
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    code: String,
    comments: String,
}

impl Reader {
    fn run(mut self) -> Code {
        let mut inside = Inside::Code;
        while self.at < self.chars.len() {
            inside = match inside {
                Inside::Code => self.code_char(),
                Inside::LineComment => self.line_comment(),
                Inside::BlockComment(depth) => self.block_comment(depth),
                Inside::Text => self.text(),
                Inside::RawText(hashes) => self.raw_text(hashes),
            };
        }
        Code { code: self.code, comments: self.comments }
    }

    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    /// Copies characters to one side and blanks the other.
    fn take(&mut self, n: usize, to_code: bool, to_comments: bool) {
        for _ in 0..n {
            let c = self.peek(0);
            let blank = if c == '\n' { '\n' } else { ' ' };
            self.code.push(if to_code { c } else { blank });
            self.comments.push(if to_comments { c } else { blank });
            self.at += 1;
        }
    }

    fn code_char(&mut self) -> Inside {
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => Inside::LineComment,
            ('/', '*') => {
                self.take(2, false, true);
                Inside::BlockComment(1)
            }
            ('"', _) => {
                self.take(1, true, false);
                Inside::Text
            }
            ('r', '"' | '#') if !self.after_word() => self.raw_start(),
            ('\'', _) => {
                self.quote();
                Inside::Code
            }
            _ => {
                self.take(1, true, false);
                Inside::Code
            }
        }
    }

    fn after_word(&self) -> bool {
        // `br"` is a raw literal too: a lone `b` before is no word.
        let before = |n: usize| self.at.checked_sub(n).and_then(|i| self.chars.get(i)).copied().unwrap_or(' ');
        let word = |c: char| c.is_alphanumeric() || c == '_';
        word(before(1)) && (before(1) != 'b' || word(before(2)))
    }

    fn raw_start(&mut self) -> Inside {
        let hashes = (1..).take_while(|n| self.peek(*n) == '#').count();
        if self.peek(1 + hashes) != '"' {
            self.take(1, true, false);
            return Inside::Code;
        }
        self.take(2 + hashes, true, false);
        Inside::RawText(hashes)
    }

    /// A character literal is blanked; a lifetime is code.
    fn quote(&mut self) {
        let escaped = self.peek(1) == '\\';
        if escaped || self.peek(2) == '\'' {
            let mut n = if escaped { 3 } else { 2 };
            while self.peek(n) != '\'' && self.peek(n) != '\n' && self.peek(n) != '\0' {
                n += 1;
            }
            self.take(n + 1, false, false);
        } else {
            self.take(1, true, false);
        }
    }

    fn line_comment(&mut self) -> Inside {
        let ended = self.peek(0) == '\n';
        self.take(1, false, true);
        if ended { Inside::Code } else { Inside::LineComment }
    }

    fn block_comment(&mut self, depth: usize) -> Inside {
        match (self.peek(0), self.peek(1)) {
            ('/', '*') => {
                self.take(2, false, true);
                Inside::BlockComment(depth + 1)
            }
            ('*', '/') => {
                self.take(2, false, true);
                if depth == 1 { Inside::Code } else { Inside::BlockComment(depth - 1) }
            }
            _ => {
                self.take(1, false, true);
                Inside::BlockComment(depth)
            }
        }
    }

    fn text(&mut self) -> Inside {
        match self.peek(0) {
            '\\' => {
                self.take(2, false, false);
                Inside::Text
            }
            '"' => {
                self.take(1, true, false);
                Inside::Code
            }
            _ => {
                self.take(1, false, false);
                Inside::Text
            }
        }
    }

    fn raw_text(&mut self, hashes: usize) -> Inside {
        let ends = self.peek(0) == '"' && (1..=hashes).all(|n| self.peek(n) == '#');
        if ends {
            self.take(1 + hashes, true, false);
            return Inside::Code;
        }
        self.take(1, false, false);
        Inside::RawText(hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_told_from_code() {
        let text = "let a = \"fn x() {\"; // fn y() {\nlet b = '{'; let c: &'a str = r#\"\"}\"#; /* { /* } */ */ done";
        let code = Code::read(text);
        for hidden in ["fn x", "fn y", "{", "}"] {
            assert!(!code.code.contains(hidden), "{hidden} is not code in {:?}", code.code);
        }
        assert!(code.code.contains("&'a str") && code.code.ends_with("done"));
        assert!(code.comments.contains("fn y() {") && !code.comments.contains("fn x"));
        assert_eq!(code.code.lines().count(), text.lines().count());
    }

    #[test]
    fn a_functions_lines_are_counted_to_its_closing_brace() {
        let text = "trait T {\n    fn none(&self);\n}\nfn one() {}\nasync fn two(a: [u8; 2])\nwhere\n{\n    if true {\n    }\n}\n";
        let found = Code::read(text).functions();
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(found, [("one", 4, 1), ("two", 5, 6)]);
    }
}
