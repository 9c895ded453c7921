//! Markdown as HTML: only what a post-mortem uses. HTML in it is shown as text, links lead to http and https, and
//! pictures come from this receiver alone.

use maud::{Markup, PreEscaped, Render, html};
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::parts::{Text, address, shown};

/// `picture`: the path of the picture, wherever the text has one.
pub fn render(text: &str, picture: Option<&str>) -> Markup {
    let mut out = HtmlWriter { picture, ..HtmlWriter::default() };
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        out.event(event);
    }
    // an element that is still open would take in the rest of the page
    while let Some(end) = out.open.pop() {
        out.html.push_str(end);
    }
    PreEscaped(out.html)
}

#[derive(Default)]
struct HtmlWriter<'p> {
    html: String,
    picture: Option<&'p str>,
    /// The ends of the elements that are open.
    open: Vec<&'static str>,
    in_head: bool,
    /// The headings of the table, and how many cells of its row have begun.
    headings: Vec<String>,
    cells: usize,
    /// The description of a picture that is being read.
    described: Option<String>,
}

impl HtmlWriter<'_> {
    fn event(&mut self, event: Event<'_>) {
        if let Some(described) = &mut self.described {
            match event {
                Event::Text(text) | Event::Code(text) => described.push_str(&text),
                Event::End(TagEnd::Image) => self.image(),
                _ => {}
            }
            return;
        }
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(TagEnd::TableHead) => {
                self.close(); // the row
                self.close();
                self.in_head = false;
                self.begin("<tbody>", "</tbody>");
            }
            Event::End(TagEnd::Table) => {
                self.close();
                self.close();
            }
            Event::End(TagEnd::Image) => {}
            Event::End(_) => self.close(),
            // HTML of the text is text
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            Event::Code(text) => {
                self.name(&text);
                self.html.push_str(&html! { code { (Text(&text)) } }.into_string());
            }
            Event::SoftBreak => self.html.push('\n'),
            Event::HardBreak => self.html.push_str("<br>"),
            Event::Rule => self.html.push_str("<hr>"),
            Event::TaskListMarker(done) => self.text(if done { "[x] " } else { "[ ] " }),
            Event::FootnoteReference(text) | Event::InlineMath(text) | Event::DisplayMath(text) => self.text(&text),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => self.begin("<p>", "</p>"),
            // the page has a heading of the first level, and its section one of the second
            Tag::Heading { level: HeadingLevel::H1, .. } => self.begin("<h3>", "</h3>"),
            Tag::Heading { level: HeadingLevel::H2, .. } => self.begin("<h4>", "</h4>"),
            Tag::Heading { .. } => self.begin("<h5>", "</h5>"),
            Tag::BlockQuote(_) => self.begin("<blockquote>", "</blockquote>"),
            Tag::CodeBlock(CodeBlockKind::Indented | CodeBlockKind::Fenced(_)) => {
                self.begin("<pre tabindex=\"0\"><code>", "</code></pre>");
            }
            Tag::List(None) => self.begin("<ul>", "</ul>"),
            Tag::List(Some(_)) => self.begin("<ol>", "</ol>"),
            Tag::Item => self.begin("<li>", "</li>"),
            Tag::Table(_) => {
                self.headings.clear();
                self.begin("<table class=\"wide\">", "</table>");
            }
            Tag::TableHead => {
                self.in_head = true;
                self.begin("<thead>", "</thead>");
                self.begin("<tr>", "</tr>");
            }
            Tag::TableRow => {
                self.cells = 0;
                self.begin("<tr>", "</tr>");
            }
            Tag::TableCell if self.in_head => {
                self.headings.push(String::new());
                self.begin("<th scope=\"col\">", "</th>");
            }
            // a narrow screen shows no headings: each cell names its own
            Tag::TableCell => {
                self.html.push_str("<td data-label=\"");
                shown(self.headings.get(self.cells).map_or("", String::as_str)).render_to(&mut self.html);
                self.cells += 1;
                self.begin("\">", "</td>");
            }
            Tag::Emphasis => self.begin("<em>", "</em>"),
            Tag::Strong => self.begin("<strong>", "</strong>"),
            Tag::Strikethrough => self.begin("<del>", "</del>"),
            Tag::Link { dest_url, .. } => match address(&dest_url) {
                Some(url) => {
                    self.html.push_str("<a rel=\"noopener noreferrer\" href=\"");
                    url.render_to(&mut self.html);
                    self.begin("\">", "</a>");
                }
                None => self.begin("<span>", "</span>"),
            },
            Tag::Image { .. } => self.described = Some(String::new()),
            // what else there is has no meaning of its own here
            _ => self.begin("", ""),
        }
    }

    fn begin(&mut self, start: &str, end: &'static str) {
        self.html.push_str(start);
        self.open.push(end);
    }

    fn close(&mut self) {
        self.html.push_str(self.open.pop().unwrap_or_default());
    }

    /// Adds to the heading that is being read.
    fn name(&mut self, text: &str) {
        if let Some(heading) = self.headings.last_mut().filter(|_| self.in_head) {
            heading.push_str(text);
        }
    }

    /// Line ends stay: code has them.
    fn text(&mut self, text: &str) {
        self.name(text);
        for (at, line) in text.split('\n').enumerate() {
            if at > 0 {
                self.html.push('\n');
            }
            Text(line).render_to(&mut self.html);
        }
    }

    fn image(&mut self) {
        let described = self.described.take().unwrap_or_default();
        let image = match self.picture {
            Some(path) => {
                html! { img class="picture" src=(path) width="800" height="400" alt=(shown(&described)); }
            }
            None => html! { em { (Text(&described)) } },
        };
        self.html.push_str(&image.into_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        render(text, Some("/picture.svg")).into_string()
    }

    #[test]
    fn what_a_post_mortem_uses_becomes_html() {
        let text = "# A\n\n## B\n\nOne `<b>` *two* **three**\n\n- x\n- y\n\n| `k` | \"v\" |\n|---|---|\n| a | b |\n\n\
            ```diff\n-old\n+<new>\n```\n";
        let expected = "<h3>A</h3><h4>B</h4><p>One <code>&lt;b&gt;</code> <em>two</em> <strong>three</strong></p>\
            <ul><li>x</li><li>y</li></ul><table class=\"wide\"><thead><tr><th scope=\"col\"><code>k</code></th>\
            <th scope=\"col\">&quot;v&quot;</th></tr></thead><tbody><tr><td data-label=\"k\">a</td>\
            <td data-label=\"&quot;v&quot;\">b</td></tr></tbody></table>\
            <pre tabindex=\"0\"><code>-old\n+&lt;new&gt;\n</code></pre>";
        assert_eq!(rendered(text), expected);
    }

    #[test]
    fn html_is_text_and_links_lead_to_web_pages() {
        let text = "<script>alert(1)</script>\n\n<img src=x onerror=alert(1)> [a](javascript:alert(1)) \
            [b](https://x.example/?a=\"b\"&c) <https://bank.example@evil.example> [c](data:text/html,x) \
            [d](//evil.example)";
        let html = rendered(text);
        assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{html}");
        let links: Vec<_> = html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(links, ["https://x.example/?a=&quot;b&quot;&amp;c"], "{html}");
    }

    #[test]
    fn a_picture_is_the_receivers_own_whatever_the_text_names() {
        let text = "![error ratio][picture]\n\n[picture]: https://evil.example/track.png\n";
        let html = rendered(text);
        assert!(html.contains("src=\"/picture.svg\"") && html.contains("alt=\"error ratio\""), "{html}");
        assert!(!html.contains("evil"), "{html}");
        assert_eq!(render(text, None).into_string(), "<p><em>error ratio</em></p>");
    }

    #[test]
    fn the_rest_of_the_page_stays_outside() {
        for text in ["> - **a", "| a |\n|---|\n| b", "```\nx", "</article></main><p>", "* * *", "[a](", "1. x\n   > y"]
        {
            let html = rendered(text);
            for name in ["p", "ul", "ol", "li", "table", "thead", "tbody", "tr", "td", "th", "pre", "blockquote", "a"] {
                let ends = html.matches(&format!("</{name}>")).count();
                let starts = html.matches(&format!("<{name}>")).count() + html.matches(&format!("<{name} ")).count();
                assert_eq!(starts, ends, "{name}: {text:?}: {html}");
            }
        }
    }
}
