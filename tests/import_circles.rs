//! Modules inside a crate import one way, as crates do.
//!
//! The nodes are source files; a module written inline belongs to its file. A file imports another when, outside
//! `#[cfg(test)]`, it names an item that the other *defines*, however the name travels: `use crate::a::X`,
//! `use crate::{a::X, b}`, `use super::X`, `crate::a::f()`, `child::f()`, a glob, or through re-exports, which are
//! followed to the defining file. So these are not imports by themselves:
//! - `mod child;`, and `use crate::a;` until something of `a` is named;
//! - `pub use child::X`, unless the file itself also names `X`;
//! - `use super::X` or `use crate::X` where the parent only re-exports `X`: that imports the file which defines it.
//!
//! A parent that calls into its child while the child uses an item defined in the parent is a circle. A circle is
//! reported as all files that reach each other. Methods are not followed, nor are traits that a file uses only
//! through its own `pub use`.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Circles that are still there, by the files that reach each other. An entry that is no circle any more must go.
const KNOWN: &[&[&str]] = &[
    // Values, their methods and printing name each other, and `lib.rs` both holds the errors and starts rendering.
    &[
        "jinja/src/arguments.rs",
        "jinja/src/bounds.rs",
        "jinja/src/builtins/functions.rs",
        "jinja/src/builtins/mod.rs",
        "jinja/src/builtins/number_filters.rs",
        "jinja/src/builtins/operators.rs",
        "jinja/src/builtins/predicates.rs",
        "jinja/src/builtins/sequence_filters.rs",
        "jinja/src/builtins/text_filters.rs",
        "jinja/src/desugar/mod.rs",
        "jinja/src/format.rs",
        "jinja/src/json.rs",
        "jinja/src/lexer.rs",
        "jinja/src/lib.rs",
        "jinja/src/methods.rs",
        "jinja/src/python/arithmetic.rs",
        "jinja/src/python/mod.rs",
        "jinja/src/python/order.rs",
        "jinja/src/python/print.rs",
    ],
];

#[test]
fn modules_import_one_way() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let known: BTreeSet<BTreeSet<String>> =
        KNOWN.iter().map(|files| files.iter().map(|file| (*file).to_owned()).collect()).collect();
    let mut found = BTreeMap::new();
    for folder in fs::read_dir(crates).unwrap() {
        found.extend(circles(&folder.unwrap().path(), crates));
    }
    let new: Vec<&str> = found.iter().filter(|(files, _)| !known.contains(*files)).map(|(_, why)| &**why).collect();
    let gone: Vec<&BTreeSet<String>> = known.iter().filter(|files| !found.contains_key(*files)).collect();
    assert!(new.is_empty(), "files that import each other:\n{}", new.join("\n"));
    assert!(gone.is_empty(), "no circles any more, so not to be listed as known: {gone:#?}");
}

/// The circles of a crate: the files of each, and a line for each import in it.
fn circles(package: &Path, shown_from: &Path) -> BTreeMap<BTreeSet<String>, String> {
    let source = package.join("src");
    let mut roots: Vec<PathBuf> = vec![source.join("lib.rs"), source.join("main.rs")];
    roots.extend(fs::read_dir(source.join("bin")).into_iter().flatten().map(|entry| entry.unwrap().path()));
    let mut found = BTreeMap::new();
    for root in roots.into_iter().filter(|root| root.is_file()) {
        let imports = Tree::read(root).imports();
        let reach: BTreeMap<&Path, BTreeSet<&Path>> =
            imports.keys().map(|file| (file.as_path(), reachable(file, &imports))).collect();
        for (file, reached) in reach.iter().filter(|(file, reached)| reached.contains(*file)) {
            let circle: BTreeSet<&Path> = reached.iter().copied().filter(|other| reach[other].contains(file)).collect();
            let show = |file: &Path| file.strip_prefix(shown_from).unwrap().to_str().unwrap().replace('\\', "/");
            let mut why = String::new();
            for from in &circle {
                for (to, names) in imports[*from].iter().filter(|(to, _)| circle.contains(to.as_path())) {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    why += &format!("  {} imports {} of {}\n", show(from), names.join(", "), show(to));
                }
            }
            found.insert(circle.iter().map(|file| show(file)).collect(), why);
        }
    }
    found
}

/// File → file that it imports → names.
type Imports = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

/// Files that `start` imports, and those that they import, and so on; `start` is among them if it is in a circle.
fn reachable<'a>(start: &Path, imports: &'a Imports) -> BTreeSet<&'a Path> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![start];
    while let Some(file) = todo.pop() {
        for next in imports.get(file).into_iter().flat_map(BTreeMap::keys) {
            if seen.insert(next.as_path()) {
                todo.push(next);
            }
        }
    }
    seen
}

#[derive(Default)]
struct Module {
    file: PathBuf,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    defines: BTreeSet<String>,
    uses: Vec<Use>,
    /// Paths of more than one segment outside `use`.
    paths: BTreeSet<Vec<String>>,
    /// First segments of paths outside `use`.
    names: BTreeSet<String>,
}

/// One leaf of a `use` tree.
struct Use {
    path: Vec<String>,
    /// The name that it binds; none for a glob.
    name: Option<String>,
    public: bool,
}

/// What a name stands for.
#[derive(Clone, Copy)]
enum Named {
    Module(usize),
    /// Something that the module defines.
    ItemOf(usize),
}

/// The modules of a crate; the first is its root.
struct Tree {
    modules: Vec<Module>,
}

impl Tree {
    fn read(root: PathBuf) -> Self {
        let mut tree = Self { modules: Vec::new() };
        let folder = root.parent().unwrap().to_owned();
        tree.read_file(root, &folder, None);
        tree
    }

    /// `folder` is where the files of the module's children lie.
    fn read_file(&mut self, file: PathBuf, folder: &Path, parent: Option<usize>) -> usize {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let id = self.add(file, parent);
        self.read_tokens(tokens, id, folder, true);
        id
    }

    fn add(&mut self, file: PathBuf, parent: Option<usize>) -> usize {
        self.modules.push(Module { file, parent, ..Module::default() });
        self.modules.len() - 1
    }

    /// `items`: these are the module's own items, not the inside of one.
    fn read_tokens(&mut self, tokens: TokenStream, id: usize, folder: &Path, items: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let word = |at: usize| match tokens.get(at) {
            Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
            _ => None,
        };
        let sign = |at: usize, sign: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == sign);
        let mut at = 0;
        let mut public = false;
        while at < tokens.len() {
            if sign(at, '#')
                && let Some(TokenTree::Group(attribute)) = tokens.get(at + 1)
            {
                at += 2;
                if is_test(attribute.stream()) {
                    at = end_of_item(&tokens, at);
                } else {
                    self.read_attribute(attribute.stream(), id, folder);
                }
                continue;
            }
            let Some(first) = word(at) else {
                if let TokenTree::Group(group) = &tokens[at] {
                    self.read_tokens(group.stream(), id, folder, false);
                }
                public &= matches!(tokens[at], TokenTree::Group(_)); // pub(crate)
                at += 1;
                continue;
            };
            match (first.as_str(), word(at + 1)) {
                ("use", _) if !sign(at + 1, '<') => {
                    let end = (at..tokens.len()).find(|end| sign(*end, ';')).unwrap();
                    read_use(&tokens[at + 1..end], &[], public, &mut self.modules[id].uses);
                    at = end;
                }
                ("mod", Some(name)) => {
                    let inside = folder.join(&name);
                    let child = if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
                        let child = self.add(self.modules[id].file.clone(), Some(id));
                        self.read_tokens(body.stream(), child, &inside, true);
                        child
                    } else {
                        let flat = folder.join(format!("{name}.rs"));
                        let file = if flat.is_file() { flat } else { inside.join("mod.rs") };
                        self.read_file(file, &inside, Some(id))
                    };
                    self.modules[id].children.insert(name, child);
                    at += 2;
                }
                ("fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" | "macro_rules", name) => {
                    let name = name.or_else(|| word(at + 2)); // macro_rules! name
                    if items && let Some(name) = name {
                        self.modules[id].defines.insert(name);
                    }
                    let named = word(at + 1).is_some_and(|name| !matches!(name.as_str(), "fn" | "unsafe" | "async"));
                    at += usize::from(named);
                }
                _ => {
                    let mut path = vec![first];
                    let field = at > 0 && sign(at - 1, '.') && !(at > 1 && sign(at - 2, '.'));
                    while sign(at + 1, ':') && sign(at + 2, ':') && word(at + 3).is_some() {
                        path.extend(word(at + 3));
                        at += 3;
                    }
                    if !field {
                        self.modules[id].names.insert(path[0].clone());
                    }
                    if path.len() > 1 {
                        self.modules[id].paths.insert(path.clone());
                    }
                    public = path == ["pub"] || (public && path == ["crate"]);
                    at += 1;
                    continue;
                }
            }
            public = false;
            at += 1;
        }
    }

    /// Paths in attributes are tokens, or text as in `#[serde(with = "crate::hex")]`.
    fn read_attribute(&mut self, tokens: TokenStream, id: usize, folder: &Path) {
        if tokens.clone().into_iter().next().is_some_and(|first| first.to_string() == "doc") {
            return;
        }
        for token in tokens.clone() {
            match token {
                TokenTree::Group(group) => self.read_attribute(group.stream(), id, folder),
                TokenTree::Literal(text) => {
                    let text = text.to_string();
                    let path = text.trim_matches('"');
                    if path.contains("::")
                        && let Ok(tokens) = path.parse()
                    {
                        self.read_tokens(tokens, id, folder, false);
                    }
                }
                _ => {}
            }
        }
        self.read_tokens(tokens, id, folder, false);
    }

    fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (id, module) in self.modules.iter().enumerate() {
            let out = imports.entry(module.file.clone()).or_default();
            let mut import = |from: usize, path: &[String]| {
                if let Some(Named::ItemOf(to)) = self.follow(from, path, 0)
                    && self.modules[to].file != module.file
                {
                    let item = path.iter().find(|name| self.modules[to].defines.contains(*name));
                    let names = out.entry(self.modules[to].file.clone()).or_default();
                    names.insert(item.or(path.last()).unwrap().clone());
                }
            };
            for path in &module.paths {
                import(id, path);
            }
            for leaf in &module.uses {
                match &leaf.name {
                    Some(name) if !leaf.public || module.names.contains(name) => import(id, &leaf.path),
                    Some(_) => {}
                    None => {
                        if let Some(Named::Module(from)) = self.follow(id, &leaf.path, 0) {
                            for name in &module.names {
                                import(from, std::slice::from_ref(name));
                            }
                        }
                    }
                }
            }
        }
        imports
    }

    /// What a path in a module stands for; none if it leads out of the crate.
    fn follow(&self, from: usize, path: &[String], depth: usize) -> Option<Named> {
        let mut module = from;
        for (at, segment) in path.iter().enumerate() {
            let last = at + 1 == path.len();
            match segment.as_str() {
                "crate" => module = 0,
                "self" => {}
                "super" => module = self.modules[module].parent?,
                name => match self.find(module, name, !last, depth)? {
                    Named::Module(next) => module = next,
                    item => return Some(item),
                },
            }
        }
        Some(Named::Module(module))
    }

    /// A name in a module: its own, or one that a `use` brings.
    fn find(&self, id: usize, name: &str, want_module: bool, depth: usize) -> Option<Named> {
        if depth > 16 {
            return None; // globs that import each other
        }
        let module = &self.modules[id];
        let child = module.children.get(name).map(|child| Named::Module(*child));
        if want_module && child.is_some() {
            return child;
        }
        if module.defines.contains(name) {
            return Some(Named::ItemOf(id));
        }
        let named = module.uses.iter().filter(|leaf| leaf.name.as_deref() == Some(name));
        let by_name = named.filter_map(|leaf| {
            let outside = leaf.path == [name]; // `use name;` brings a crate
            if outside { None } else { self.follow(id, &leaf.path, depth + 1) }
        });
        let globs = module.uses.iter().filter(|leaf| leaf.name.is_none());
        let by_glob = globs.filter_map(|leaf| match self.follow(id, &leaf.path, depth + 1)? {
            Named::Module(from) if from != id => self.find(from, name, want_module, depth + 1),
            _ => None,
        });
        by_name.chain(child).chain(by_glob).next()
    }
}

/// Whether an attribute's content is `cfg(test)` or `cfg(all(test, …))`.
fn is_test(attribute: TokenStream) -> bool {
    let text = attribute.to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(test")
}

/// The first token after the item that begins at `at`.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let is_use = tokens[at..].iter().take(3).any(|token| token.to_string() == "use");
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace && !is_use,
        token => token.to_string() == ";",
    };
    tokens[at..].iter().position(ends).map_or(tokens.len(), |end| at + end + 1)
}

/// The leaves of a `use` tree.
fn read_use(tokens: &[TokenTree], before: &[String], public: bool, uses: &mut Vec<Use>) {
    let mut path = before.to_vec();
    let mut name = None;
    let mut renamed = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                for branch in inside.split(|token| token.to_string() == ",") {
                    read_use(branch, &path, public, uses);
                }
                return;
            }
            TokenTree::Ident(ident) if ident == "as" => renamed = true,
            TokenTree::Ident(ident) if renamed => name = Some(ident.to_string()),
            TokenTree::Ident(ident) if ident == "self" && !before.is_empty() => {}
            TokenTree::Ident(ident) => path.push(ident.to_string()),
            TokenTree::Punct(sign) if sign.as_char() == '*' => {
                uses.push(Use { path, name: None, public });
                return;
            }
            _ => {}
        }
    }
    if tokens.is_empty() {
        return; // after the last comma
    }
    let name = name.or_else(|| path.last().cloned());
    uses.push(Use { path, name, public });
}

/// The circles of a crate with these files.
fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("src");
    for (name, text) in files {
        let file = source.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    circles(folder.path(), &source).into_keys().map(|files| files.into_iter().collect()).collect()
}

#[test]
fn circles_are_found_however_the_import_is_spelt() {
    for import in [
        "use crate::b::g;",
        "use crate::{c, b::{self, g}};",
        "use super::b::{g as h};",
        "use crate::b::*; fn x() { g() }",
        "use crate::b; fn x() { b::g() }",
        "use crate::g; use crate::c;",
        "fn x() { super::b::g() }",
        "fn x() { println!(\"{}\", crate::b::g()) }",
        "#[serde(with = \"crate::b::g\")] struct X;",
        "mod inner { fn x() { super::super::b::g() } }",
        "mod inner { use crate::b::g; }",
        "pub use crate::b::g; fn x() { g() }",
    ] {
        let a = format!("{import} pub fn f() {{}}");
        let files = [
            ("lib.rs", "mod a; mod b; mod c; pub use b::g;"),
            ("a.rs", &*a),
            ("b.rs", "pub fn g() { crate::c::h() }"),
            ("c.rs", "use crate::a; pub fn h() { a::f() }"),
        ];
        assert_eq!(circles_of(&files), [["a.rs", "b.rs", "c.rs"]], "{import}");
    }
}

#[test]
fn what_only_declares_tests_or_passes_on_is_no_circle() {
    for import in [
        "",
        "#[cfg(test)] mod tests { use crate::b::g; }",
        "#[cfg(test)] use crate::{b::g}; #[cfg(all(test, unix))] fn x() { crate::b::g() }",
        "use crate::b;",
        "pub use crate::b::g;",
        "/// Like [`crate::b::g`].\n pub struct X; // crate::b::g()",
        "fn x() { \"crate::b::g()\"; }",
        "use super::c::h;",
    ] {
        let a = format!("{import} pub fn f() {{}}");
        let files = [
            ("lib.rs", "mod a; mod b; mod c; pub use b::g;"),
            ("a.rs", &*a),
            ("b.rs", "use crate::a::f; pub fn g() {}"),
            ("c.rs", "pub fn h() {}"),
        ];
        assert_eq!(circles_of(&files), Vec::<Vec<String>>::new(), "{import}");
    }
}

#[test]
fn a_parent_is_in_a_circle_only_with_what_it_defines() {
    let circle = |parent: &str, child: &str| {
        circles_of(&[("lib.rs", "mod p;"), ("p/mod.rs", parent), ("p/c.rs", child), ("p/d.rs", "pub struct D;")])
    };
    let none = Vec::<Vec<String>>::new();
    assert_eq!(circle("mod c; pub use c::C; pub struct P;", "use super::P; pub struct C;"), none);
    assert_eq!(circle("mod c; mod d; pub use d::D; use c::C;", "use super::D; pub struct C;"), none);
    assert_eq!(circle("mod c; use c::C; pub struct P;", "use super::P; pub struct C;"), [["p/c.rs", "p/mod.rs"]]);
    assert_eq!(circle("mod c; fn f() { c::C }", "use crate::p::f; pub struct C;"), [["p/c.rs", "p/mod.rs"]]);
    assert_eq!(circle("mod c; pub use c::C; fn f(_: C) {}", "use super::*; fn g() { f(C) } pub struct C;").len(), 1);
}
