//! As much of HTML as it takes to follow links: tags and their attributes.

use std::collections::HashSet;

/// What one page offers and asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// What a `#` may lead to.
    pub(super) ids: HashSet<String>,
    /// Values of `href` and `src`.
    pub(super) links: Vec<String>,
    /// Code blocks without code: what mdbook makes, without a word, of an included part that does not exist.
    pub(super) empty: usize,
}

impl Page {
    pub(super) fn read(html: &str) -> Self {
        let mut page = Self::default();
        let mut rest = html;
        while let Some(start) = rest.find('<') {
            rest = &rest[start + 1..];
            if let Some(comment) = rest.strip_prefix("!--") {
                rest = comment.split_once("-->").map_or("", |(_, after)| after);
                continue;
            }
            let (tag, after) = rest.split_at(end_of_tag(rest));
            rest = after;
            // Says where links start, and is none; only the page for errors has one, which stands at the root.
            if !tag.starts_with("base ") {
                page.tag(tag);
            }
            match tag.split([' ', '\n', '>']).next() {
                // What stands inside is no HTML.
                Some(name @ ("script" | "style")) => {
                    let end = rest.find(&format!("</{name}"));
                    rest = &rest[end.unwrap_or(rest.len())..];
                }
                Some("code") if rest.trim_start_matches(['>', '\n']).starts_with("</code>") => {
                    page.empty += 1;
                }
                _ => {}
            }
        }
        page
    }

    fn tag(&mut self, tag: &str) {
        for (name, value) in attributes(tag) {
            match name {
                "id" => {
                    self.ids.insert(value);
                }
                "href" | "src" => self.links.push(value),
                _ => {}
            }
        }
    }
}

/// The place of the `>` that ends a tag, or the end of the text.
fn end_of_tag(rest: &str) -> usize {
    let mut quote = None;
    for (place, character) in rest.char_indices() {
        match (quote, character) {
            (None, '>') => return place,
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    rest.len()
}

/// The attributes of a tag that have a value.
fn attributes(tag: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once('=') {
        let name = before
            .rsplit(char::is_whitespace)
            .next()
            .unwrap_or_default();
        let after = after.trim_start();
        let (value, more) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
            _ => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        found.push((name, unescaped(value)));
        rest = more;
    }
    found
}

/// The text that a value stands for.
fn unescaped(value: &str) -> String {
    let mut text = value.to_owned();
    for (escape, character) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&amp;", "&"),
    ] {
        text = text.replace(escape, character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_ids_are_found_and_nothing_else() {
        let page = Page::read(
            "<base href=\"/\"><!-- <a href=\"comment.html\"> -->\n<script src='a.js'>if (1 < 2) x = '<a href=\"no.html\">';</script>\n\
             <h1 id=\"one\"><a class=\"header\" href=\"#one\">1 &lt; 2</a></h1><p title=\"a > b\" id=two>\n\
             <a\n  href=\"b.html?x=1&amp;y=2#three\"\n>b</a> href=\"text.html\" <img alt src='c.png'/>",
        );
        let ids = ["one", "two"].map(str::to_owned);
        assert_eq!(page.ids, HashSet::from(ids));
        assert_eq!(
            page.links,
            ["a.js", "#one", "b.html?x=1&y=2#three", "c.png"]
        );
        assert_eq!(page.empty, 0);
    }

    #[test]
    fn empty_code_is_counted() {
        let page = Page::read(
            "<pre><code class=\"language-rust\"></code></pre><code>x</code><code>\n</code><p></p>",
        );
        assert_eq!(page.empty, 2);
    }

    #[test]
    fn cut_text_ends() {
        for html in ["<a href=\"x", "<!-- ", "<script>", "<a href=", "<", "<code"] {
            Page::read(html);
        }
    }
}
