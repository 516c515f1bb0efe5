//! A small tree of an XML part of an office file.

use crate::archive::refused;
use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::{BytesStart, Event};
use std::ops::Range;

/// Elements that may nest.
const MAX_DEPTH: usize = 200;
/// Elements of one part.
const MAX_NODES: usize = 1_000_000;

/// An element.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    /// Its name, prefix included: `w:p`.
    pub(crate) name: String,
    /// Names and values of its attributes.
    pub(crate) attributes: Vec<(String, String)>,
    /// Elements in it.
    pub(crate) children: Vec<Node>,
    /// Text right in it.
    pub(crate) text: String,
}

impl Node {
    /// Parses a part.
    pub(crate) fn parse(xml: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::from_reader(xml);
        let mut open: Vec<Self> = vec![Self::default()];
        let mut count = 0;
        loop {
            match reader.read_event().map_err(|e| e.to_string())? {
                Event::Eof => break,
                Event::Start(start) => {
                    count += 1;
                    if open.len() > MAX_DEPTH || count > MAX_NODES {
                        return Err(refused("the document is nested too deeply or has too many parts"));
                    }
                    open.push(Self::of(&start)?);
                }
                Event::Empty(start) => {
                    count += 1;
                    if count > MAX_NODES {
                        return Err(refused("the document has too many parts"));
                    }
                    let node = Self::of(&start)?;
                    open.last_mut().ok_or("no element is open")?.children.push(node);
                }
                Event::End(_) => {
                    let node = open.pop().ok_or("an element ends that did not begin")?;
                    open.last_mut().ok_or("an element ends that did not begin")?.children.push(node);
                }
                Event::Text(text) => {
                    let text = text.unescape().map_err(|e| e.to_string())?;
                    let text = text.replace("\r\n", "\n");
                    open.last_mut().ok_or("no element is open")?.text.push_str(&text);
                }
                Event::CData(data) => {
                    let text = String::from_utf8_lossy(&data).into_owned();
                    open.last_mut().ok_or("no element is open")?.text.push_str(&text);
                }
                _ => {}
            }
        }
        if open.len() != 1 {
            return Err("an element does not end".into());
        }
        open.pop().and_then(|root| root.children.into_iter().next()).ok_or_else(|| "the part is empty".into())
    }

    fn of(start: &BytesStart<'_>) -> Result<Self, String> {
        let mut node = Self { name: String::from_utf8_lossy(start.name().as_ref()).into_owned(), ..Self::default() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|e| e.to_string())?;
            let value = attribute.unescape_value().map_err(|e| e.to_string())?.into_owned();
            node.attributes.push((String::from_utf8_lossy(attribute.key.as_ref()).into_owned(), value));
        }
        Ok(node)
    }

    /// The first child of a name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|c| c.name == name)
    }
    /// An attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    /// Its name without the prefix.
    pub(crate) fn local(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or(&self.name)
    }
    /// Gives an attribute a value, or takes it away.
    pub(crate) fn set(&mut self, name: &str, value: Option<String>) {
        match (self.attributes.iter().position(|(n, _)| n == name), value) {
            (Some(at), Some(value)) => self.attributes[at].1 = value,
            (Some(at), None) => {
                self.attributes.remove(at);
            }
            (None, Some(value)) => self.attributes.push((name.to_owned(), value)),
            (None, None) => {}
        }
    }

    /// Writes it: its text, then the elements in it.
    pub(crate) fn write(&self, out: &mut String) {
        out.push('<');
        out.push_str(&self.name);
        for (name, value) in &self.attributes {
            out.extend([" ", name, "=\"", &escape(value), "\""]);
        }
        if self.text.is_empty() && self.children.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        out.push_str(&escape(self.text.as_str()));
        self.children.iter().for_each(|child| child.write(out));
        out.extend(["</", &self.name, ">"]);
    }
}

/// Where the first element of a name (prefixes left out) lies in a part, tags included.
pub(crate) fn span_of(xml: &[u8], name: &str) -> Result<Option<Range<usize>>, String> {
    let mut reader = Reader::from_reader(xml);
    let (mut depth, mut start) = (0usize, None);
    loop {
        let before = reader.buffer_position() as usize;
        let event = reader.read_event().map_err(|e| e.to_string())?;
        let after = reader.buffer_position() as usize;
        match event {
            Event::Eof => return Ok(None),
            Event::Empty(tag) if start.is_none() && tag.local_name().as_ref() == name.as_bytes() => {
                return Ok(Some(before..after));
            }
            Event::Start(tag) => match start {
                None if tag.local_name().as_ref() == name.as_bytes() => start = Some(before),
                None => {}
                Some(_) => depth += 1,
            },
            Event::End(_) => match (start, depth.checked_sub(1)) {
                (Some(start), None) => return Ok(Some(start..after)),
                (Some(_), Some(less)) => depth = less,
                (None, _) => {}
            },
            _ => {}
        }
    }
}
