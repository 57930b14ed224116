//~ a quota of zero units admits nothing: ask for at least one
const NONE: tollgate::Quota = tollgate::Quota::per_second(0).checked();
fn main() {
    println!("{NONE}");
}
