//! What is made of limits for every response, and seldom changes.

/// How many of one kind are remembered: as many as routes and tiers in most services.
const REMEMBERED: usize = 16;

/// The last few values, each with what it was made of. They are looked at one by one: mostly there is one.
pub(super) struct Memo<K, V>(Vec<(K, V)>);

impl<K, V> Memo<K, V> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value whose key `is` the one, or what `make` makes: then the oldest is forgotten, if there are enough.
    pub(super) fn find_or_make(&mut self, is: impl Fn(&K) -> bool, make: impl FnOnce() -> (K, V)) -> &mut V {
        let at = self.0.iter().position(|(key, _)| is(key)).unwrap_or_else(|| {
            let made = make();
            if self.0.len() == REMEMBERED {
                self.0.remove(0);
            }
            self.0.push(made);
            self.0.len() - 1
        });
        &mut self.0[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_until_it_is_forgotten() {
        let (mut memo, made) = (Memo::new(), std::cell::Cell::new(0));
        let mut find = |key: usize| {
            *memo.find_or_make(
                |known| *known == key,
                || {
                    made.set(made.get() + 1);
                    (key, 10 * key)
                },
            )
        };
        for key in (0..REMEMBERED).chain(0..REMEMBERED) {
            assert_eq!(find(key), 10 * key);
        }
        assert_eq!(made.get(), REMEMBERED);
        assert_eq!((find(REMEMBERED), find(1), find(0)), (10 * REMEMBERED, 10, 0));
        assert_eq!(made.get(), REMEMBERED + 2, "the newcomer, and the oldest that it took the place of");
    }
}
