//! Which rules a request comes under.

use std::collections::BTreeMap;

use ::http::Method;
use matchit::Router;

use super::error::Problem;
use crate::http::Path;

/// What stands for every route.
const EVERY_ROUTE: &str = "/{*rest}";

/// The rules of one kind, of which the most specific applies: the more specific route first, then the one that names
/// the method.
#[derive(Default)]
pub(super) struct Table {
    /// For each method that some rule names, and for all others.
    named: BTreeMap<String, Routes>,
    others: Routes,
}

#[derive(Default)]
struct Routes {
    router: Router<usize>,
    /// What is in the router, by the pattern without the names of its parameters.
    patterns: BTreeMap<String, Entry>,
}

struct Entry {
    pattern: String,
    rule: usize,
    names: Names,
}

/// How a rule names a method: more is more specific.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Names {
    All,
    /// `HEAD`, by `GET`: servers answer it by the same handler.
    ByGet,
    Itself,
}

/// Where a rule applies.
pub(super) struct Scope<'a> {
    pub(super) rule: usize,
    pub(super) route: Option<&'a str>,
    pub(super) methods: &'a [Method],
}

/// Why a rule has no place in the table.
pub(super) enum Misplaced {
    Route(Problem),
    /// The rule that applies to the same requests.
    With(usize),
}

impl Table {
    pub(super) fn new(scopes: &[Scope<'_>]) -> Result<Self, (usize, Misplaced)> {
        let mut table = Self::default();
        let named = |method: &Method| scopes.iter().any(|scope| scope.methods.contains(method));
        for method in scopes.iter().flat_map(|scope| scope.methods) {
            table.named.entry(method.to_string()).or_default();
        }
        if named(&Method::GET) {
            table.named.entry(Method::HEAD.to_string()).or_default();
        }
        for scope in scopes {
            let wrong = |misplaced| (scope.rule, misplaced);
            let pattern = normal(scope.route.unwrap_or(EVERY_ROUTE))
                .map_err(|problem| wrong(Misplaced::Route(problem)))?;
            for (method, routes) in &mut table.named {
                let has = |method: &str| scope.methods.iter().any(|own| own.as_str() == method);
                let names = match () {
                    () if scope.methods.is_empty() => Names::All,
                    () if has(method) => Names::Itself,
                    () if method == "HEAD" && has("GET") => Names::ByGet,
                    () => continue,
                };
                routes.put(&pattern, scope.rule, names).map_err(wrong)?;
            }
            if scope.methods.is_empty() {
                table.others.put(&pattern, scope.rule, Names::All).map_err(wrong)?;
            }
        }
        for routes in table.named.values_mut().chain([&mut table.others]) {
            routes.build()?;
        }
        Ok(table)
    }

    /// The rule that applies, if one does.
    pub(super) fn find(&self, method: &Method, path: &str) -> Option<usize> {
        let routes = self.named.get(method.as_str()).unwrap_or(&self.others);
        // `*` (of OPTIONS) and the authority of CONNECT are no paths; a rule for every route means them too.
        let path = if path.starts_with('/') { path } else { "/" };
        let found = routes.router.at(path).ok().map(|found| *found.value);
        // A pattern's rest is never empty to the router, and `/` comes under every route all the same.
        found.or_else(|| routes.patterns.get(&nameless(EVERY_ROUTE)).map(|entry| entry.rule))
    }
}

impl Routes {
    fn put(&mut self, pattern: &str, rule: usize, names: Names) -> Result<(), Misplaced> {
        let entry = Entry { pattern: pattern.to_owned(), rule, names };
        match self.patterns.get(&nameless(pattern)) {
            Some(other) if other.names == names => return Err(Misplaced::With(other.rule)),
            Some(other) if other.names > names => {}
            _ => drop(self.patterns.insert(nameless(pattern), entry)),
        }
        Ok(())
    }

    fn build(&mut self) -> Result<(), (usize, Misplaced)> {
        for Entry { pattern, rule, .. } in self.patterns.values() {
            let put = self.router.insert(pattern.clone(), *rule);
            put.map_err(|error| (*rule, Misplaced::Route(Problem::Route(error.to_string()))))?;
        }
        Ok(())
    }
}

/// The pattern as paths are matched: in their normal form. What no path can be is refused.
fn normal(pattern: &str) -> Result<String, Problem> {
    let cannot_be = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#');
    if !pattern.starts_with('/') || pattern.contains(cannot_be) {
        return Err(Problem::Route(format!("{pattern:?} is no path, so that no request matches it")));
    }
    // Braces and what stands in them are the pattern's own.
    let mut parts = String::with_capacity(pattern.len());
    for part in pattern.split_inclusive('}') {
        let (text, parameter) = part.split_at(part.find('{').unwrap_or(part.len()));
        parts.push_str(&Path::new().normal(text));
        parts.push_str(parameter);
    }
    Ok(parts)
}

/// The pattern without the names of its parameters: `/users/{id}` and `/users/{name}` match the same.
fn nameless(pattern: &str) -> String {
    let mut nameless = String::with_capacity(pattern.len());
    let mut inside = false;
    for c in pattern.chars() {
        match c {
            '{' => inside = true,
            '}' => inside = false,
            '*' => {}
            _ if inside => continue,
            _ => {}
        }
        nameless.push(c);
    }
    nameless
}
