//! Which rules a request comes under.

use std::collections::BTreeMap;

use ::http::Method;
use matchit::Router;

use super::error::Problem;

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
    /// What is in the router: the rule of each pattern, and whether it names the method.
    patterns: BTreeMap<String, (usize, bool)>,
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
        for method in scopes.iter().flat_map(|scope| scope.methods) {
            table.named.entry(method.to_string()).or_default();
        }
        for scope in scopes {
            let pattern = scope.route.unwrap_or(EVERY_ROUTE);
            let put = |routes: &mut Routes, names: bool| routes.put(pattern, scope.rule, names);
            let mut all = Ok(());
            if scope.methods.is_empty() {
                all = all.and(put(&mut table.others, false));
                for routes in table.named.values_mut() {
                    all = all.and(put(routes, false));
                }
            }
            for method in scope.methods {
                if let Some(routes) = table.named.get_mut(method.as_str()) {
                    all = all.and(put(routes, true));
                }
            }
            all.map_err(|problem| (scope.rule, problem))?;
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
        found.or_else(|| routes.patterns.get(EVERY_ROUTE).map(|(rule, _)| *rule))
    }
}

impl Routes {
    fn put(&mut self, pattern: &str, rule: usize, names_method: bool) -> Result<(), Misplaced> {
        match self.patterns.get(pattern) {
            Some((_, true)) if !names_method => Ok(()),
            Some((other, also)) if *also == names_method => Err(Misplaced::With(*other)),
            _ => {
                self.patterns.insert(pattern.to_owned(), (rule, names_method));
                Ok(())
            }
        }
    }

    fn build(&mut self) -> Result<(), (usize, Misplaced)> {
        for (pattern, (rule, _)) in &self.patterns {
            let put = self.router.insert(pattern.clone(), *rule);
            put.map_err(|error| match error {
                // Two patterns that only call their parameters differently.
                matchit::InsertError::Conflict { with } => match self.patterns.get(&with) {
                    Some((other, _)) => (*rule, Misplaced::With(*other)),
                    None => (*rule, Misplaced::Route(Problem::Route(format!("it conflicts with {with}")))),
                },
                error => (*rule, Misplaced::Route(Problem::Route(error.to_string()))),
            })?;
        }
        Ok(())
    }
}
