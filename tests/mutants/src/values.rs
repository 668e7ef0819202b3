//! What a function can return in place of its result, by its type.

use syn::{GenericArgument, PathArguments, ReturnType, Type};

const DEFAULT: &str = "::std::default::Default::default()";
/// More for one function say nothing new.
const MOST: usize = 6;

/// Expressions of the type, as text.
pub fn of_return(output: &ReturnType) -> Vec<String> {
    match output {
        ReturnType::Default => vec!["()".into()],
        ReturnType::Type(_, ty) => of(ty),
    }
}

fn of(ty: &Type) -> Vec<String> {
    let mut values = match ty {
        Type::Paren(inner) => of(&inner.elem),
        Type::Group(inner) => of(&inner.elem),
        Type::Tuple(tuple) if tuple.elems.is_empty() => vec!["()".into()],
        Type::Tuple(tuple) => {
            let mut all = vec![String::new()];
            for part in &tuple.elems {
                let parts = of(part);
                all = each(&all, |before| each(&parts, |part| vec![format!("{before}{part}, ")]));
            }
            all.into_iter().map(|inner| format!("({inner})")).collect()
        }
        Type::Array(array) => wrapped(&of(&array.elem), "::std::array::from_fn(|_| ", ")"),
        Type::Reference(reference) => match &*reference.elem {
            Type::Slice(slice) => {
                let mut all = vec!["::std::vec::Vec::leak(::std::vec::Vec::new())".to_owned()];
                all.extend(wrapped(&of(&slice.elem), "::std::vec::Vec::leak(vec![", "])"));
                all
            }
            Type::Path(path) if path.path.is_ident("str") => {
                vec!["\"\"".into(), "\"xyzzy\"".into()]
            }
            inner => wrapped(&of(inner), "::std::boxed::Box::leak(::std::boxed::Box::new(", "))"),
        },
        Type::Path(path) => of_path(path),
        // `impl Iterator` has one type: it is emptied where it is made.
        _ => Vec::new(),
    };
    values.truncate(MOST);
    values
}

fn of_path(path: &syn::TypePath) -> Vec<String> {
    let Some(last) = path.path.segments.last() else { return Vec::new() };
    let inner = match &last.arguments {
        PathArguments::AngleBracketed(args) => args.args.iter().find_map(|arg| match arg {
            GenericArgument::Type(ty) => Some(of(ty)),
            _ => None,
        }),
        _ => None,
    };
    let strings = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    match (last.ident.to_string().as_str(), inner) {
        ("bool", _) => strings(&["true", "false"]),
        ("u8" | "u16" | "u32" | "u64" | "u128" | "usize", _) => strings(&["0", "1"]),
        ("i8" | "i16" | "i32" | "i64" | "i128" | "isize", _) => strings(&["0", "1", "-1"]),
        ("String", _) => strings(&["::std::string::String::new()", "\"xyzzy\".into()"]),
        ("Option", Some(inner)) => {
            let mut all = vec!["::std::option::Option::None".to_owned()];
            all.extend(wrapped(&inner, "::std::option::Option::Some(", ")"));
            all
        }
        ("Result", Some(inner)) => wrapped(&inner, "::std::result::Result::Ok(", ")"),
        ("Result", None) => {
            strings(&["::std::result::Result::Ok(::std::default::Default::default())"])
        }
        ("Vec", Some(inner)) => {
            let mut all = vec!["::std::vec::Vec::new()".to_owned()];
            all.extend(wrapped(&inner, "vec![", "]"));
            all
        }
        ("Box", Some(inner)) => wrapped(&inner, "::std::boxed::Box::new(", ")"),
        _ => strings(&[DEFAULT]),
    }
}

fn wrapped(inner: &[String], before: &str, after: &str) -> Vec<String> {
    each(inner, |value| vec![format!("{before}{value}{after}")])
}

fn each(values: &[String], make: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    values.iter().flat_map(|value| make(value)).collect()
}

/// A type that is an iterator without a name, which can be cut short.
pub fn is_iterator(output: &ReturnType) -> bool {
    let ReturnType::Type(_, ty) = output else { return false };
    let Type::ImplTrait(bounds) = &**ty else { return false };
    bounds.bounds.iter().any(|bound| {
        matches!(bound, syn::TypeParamBound::Trait(of)
            if of.path.segments.last().is_some_and(|last| last.ident.to_string().ends_with("Iterator")))
    })
}
