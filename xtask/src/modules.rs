//! The modules of virtax's crates: which uses which, and that none uses itself in a circle. A module is a file; that a
//! folder's module names its own files is no use of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Modules, each with those that it uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// Code without its tests and comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The parts of a list, which are apart by the commas outside of all braces.
fn parts(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&list[from..]);
    found
}

/// The paths of a tree such as `a::{b, c::d}`.
fn paths(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, list)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let list = list.rsplit_once('}').map_or(list, |(list, _)| list);
    let of_part = |part: &str| paths(part).into_iter().map(|path| format!("{}{path}", before.trim()));
    parts(list).into_iter().filter(|part| !part.trim().is_empty()).flat_map(of_part).collect()
}

/// All paths that a file names: of its `use`s, and within its code.
fn named(text: &str) -> Vec<String> {
    let code = code(text);
    let mut found: Vec<String> = Vec::new();
    for rest in code.split("use ").skip(1) {
        found.extend(rest.split(';').next().map(paths).into_iter().flatten());
    }
    let is_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let words = code.split(|letter| !is_path(letter));
    found.extend(words.filter(|word| word.contains("::")).map(str::to_owned));
    found
}

/// The module that a path within another one leads to: as far as there are modules of its names.
fn module_of(path: &str, within: &str, known: &BTreeSet<String>) -> Option<String> {
    let mut names: Vec<&str> = path.split("::").map(str::trim).collect();
    let mut place: Vec<&str> = within.split("::").collect();
    match names.first() {
        Some(&"crate") => place.clear(),
        Some(&"self") => {}
        Some(&"super") => {
            while names.first() == Some(&"super") {
                place.pop();
                names.remove(0);
            }
            names.insert(0, "");
        }
        _ => return None,
    }
    names.remove(0);
    let leads_to = |count: usize| place.iter().chain(&names[..count]).copied().collect::<Vec<_>>().join("::");
    (0..=names.len()).rev().map(leads_to).find(|module| known.contains(module))
}

/// The files below a folder, by the names of their modules.
fn files(folder: &Path, module: &str, into: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let within = if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
        if path.is_dir() {
            files(&path, &within, into);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !["main", "lib", "tests"].contains(&name) {
            let module = if name == "mod" { module.to_owned() } else { within };
            into.insert(module, std::fs::read_to_string(&path).unwrap());
        }
    }
}

fn uses(files: &BTreeMap<String, String>) -> Uses {
    let known: BTreeSet<String> = files.keys().cloned().collect();
    let of = |(module, text): (&String, &String)| {
        let inner = format!("{module}::");
        let used = named(text).iter().filter_map(|path| module_of(path, module, &known)).collect::<BTreeSet<_>>();
        (module.clone(), used.into_iter().filter(|used| used != module && !used.starts_with(&inner)).collect())
    };
    files.iter().map(of).collect()
}

/// A circle of modules, if there is one.
fn circle(uses: &Uses) -> Option<Vec<String>> {
    fn follow<'a>(uses: &'a Uses, module: &'a str, way: &mut Vec<&'a str>, done: &mut BTreeSet<&'a str>) -> bool {
        if way.contains(&module) {
            way.push(module);
            return true;
        }
        if !done.contains(module) {
            way.push(module);
            for next in uses.get(module).into_iter().flatten().filter(|next| *next != module) {
                if follow(uses, next, way, done) {
                    return true;
                }
            }
            way.pop();
            done.insert(module);
        }
        false
    }
    let (mut way, mut done) = (Vec::new(), BTreeSet::new());
    let found = uses.keys().any(|module| follow(uses, module, &mut way, &mut done));
    let start = way.iter().position(|module| Some(module) == way.last())?;
    found.then(|| way[start..].iter().map(|module| (*module).to_owned()).collect())
}

/// Crates, and as many modules and uses of modules as each surely has.
const CRATES: [(&str, usize, usize); 10] = [
    ("profiler", 25, 35),
    ("profiler/agent", 2, 1),
    ("profiler/analysis", 12, 28),
    ("profiler/engines", 60, 150),
    ("profiler/model", 25, 35),
    ("profiler/probes", 20, 28),
    ("profiler/report", 30, 50),
    ("profiler-common", 14, 8),
    ("profiler-ebpf", 30, 180),
    ("workloads", 25, 45),
];

#[test]
fn no_module_of_virtax_uses_itself_in_a_circle() {
    let mut circles = Vec::new();
    for (name, modules, arrows) in CRATES {
        let mut texts = BTreeMap::new();
        files(&Path::new("..").join(name).join("src"), "", &mut texts);
        let uses = uses(&texts);
        let found = (uses.len(), uses.values().map(BTreeSet::len).sum::<usize>());
        assert!(found.0 >= modules && found.1 >= arrows, "{name}: {found:?} {uses:?}");
        circles.extend(circle(&uses).map(|circle| format!("{name}: {}", circle.join(" → "))));
    }
    assert_eq!(circles, Vec::<String>::new());
}

#[test]
fn circles_are_found_and_what_is_used_is_read() {
    let text = "use crate::{\n    a::{self, B},\n    c,\n    d::E,\n};\n// crate::comment\nuse super::f::{G, h};\n\
                fn f() { crate::g::h() }\n#[cfg(test)]\nmod tests {\n    use crate::only_tests;\n}\n";
    let known = ["a", "c", "d", "g", "x", "x::f", "x::y", "only_tests"].map(str::to_owned).into();
    let used: BTreeSet<String> = named(text).iter().filter_map(|path| module_of(path, "x::y", &known)).collect();
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["a", "c", "d", "g", "x::f"]);
    let of = |pairs: &[(&str, &str)]| {
        let mut uses = Uses::new();
        for (module, used) in pairs {
            uses.entry((*module).to_owned()).or_default().insert((*used).to_owned());
        }
        circle(&uses)
    };
    assert_eq!(of(&[("a", "b"), ("b", "c"), ("a", "c")]), None);
    assert_eq!(of(&[("x", "a"), ("a", "b"), ("b", "c"), ("c", "a")]).unwrap(), ["a", "b", "c", "a"]);
}
