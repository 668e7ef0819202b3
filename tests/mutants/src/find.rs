//! What can be changed in one file: parsed, and found where the product's own code is.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, ImplItemFn, ItemFn, Pat, TraitItemFn, UnOp};

use crate::values;

/// One change.
pub struct Mutant {
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub function: String,
    pub what: String,
    /// Whose constants it would have to be part of: a place in [`Found::consts`].
    pub in_const: Option<usize>,
}

/// How the text around a place becomes one that can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An expression: one of the texts, or what stands there.
    Instead,
    /// A function's block: leaves it at once with one of the texts.
    Leave,
    /// A function's block whose value is an iterator: ends that before its first item.
    Empty,
    /// A pattern without a guard: gets one that fails.
    Arm,
    /// The guard of a pattern: may fail before it is asked.
    GuardedArm,
}

/// A place, and the mutants that it has.
pub struct Site {
    pub range: Range<usize>,
    pub form: Form,
    /// Place in [`Found::mutants`], and the text.
    pub texts: Vec<(usize, String)>,
}

/// A `const fn`. Only one that no constant needs can be changed.
pub struct ConstFn {
    pub keyword: Range<usize>,
    pub name: String,
    /// The type that it belongs to, or nothing.
    pub of: String,
}

#[derive(Default)]
pub struct Found {
    pub mutants: Vec<Mutant>,
    pub sites: Vec<Site>,
    pub consts: Vec<ConstFn>,
}

/// All of a file.
pub fn find(file: &str, source: &str) -> Result<Found, syn::Error> {
    let tree = syn::parse_file(source)?;
    let mut finder = Finder {
        file,
        source,
        found: Found::default(),
        ty: String::new(),
        names: Vec::new(),
        in_const: None,
    };
    finder.visit_file(&tree);
    Ok(finder.found)
}

struct Finder<'a> {
    file: &'a str,
    source: &'a str,
    found: Found,
    /// The `impl` or `trait` that is being read.
    ty: String,
    names: Vec<String>,
    in_const: Option<usize>,
}

impl Finder<'_> {
    fn text(&self, of: &impl Spanned) -> &str {
        &self.source[of.span().byte_range()]
    }

    fn function(&self) -> String {
        let ty = if self.ty.is_empty() { String::new() } else { format!("{}::", self.ty) };
        ty + &self.names.join("::")
    }

    /// A place outside of every function is a constant, or nothing that runs.
    fn add(
        &mut self,
        at: &impl Spanned,
        range: Range<usize>,
        form: Form,
        texts: Vec<(String, String)>,
    ) {
        if self.names.is_empty() || texts.is_empty() {
            return;
        }
        let start = at.span().start();
        let mut site = Site { range, form, texts: Vec::new() };
        for (what, text) in texts {
            site.texts.push((self.found.mutants.len(), text));
            self.found.mutants.push(Mutant {
                file: self.file.to_owned(),
                line: start.line,
                column: start.column + 1,
                function: self.function(),
                what,
                in_const: self.in_const,
            });
        }
        self.found.sites.push(site);
    }

    fn instead(&mut self, at: &impl Spanned, whole: &Expr, texts: Vec<(String, String)>) {
        self.add(at, whole.span().byte_range(), Form::Instead, texts);
    }

    fn enter(
        &mut self,
        attrs: &[syn::Attribute],
        sig: &syn::Signature,
        block: Option<&syn::Block>,
        walk: impl FnOnce(&mut Self),
    ) {
        if is_test(attrs) {
            return;
        }
        let before = self.in_const;
        if let Some(keyword) = &sig.constness {
            self.in_const = Some(self.found.consts.len());
            let of = self.ty.rsplit(' ').next().unwrap_or_default().to_owned();
            let keyword = keyword.span().byte_range();
            self.found.consts.push(ConstFn { keyword, name: sig.ident.to_string(), of });
        }
        self.names.push(sig.ident.to_string());
        if let Some(block) = block {
            self.body(sig, block);
        }
        walk(self);
        self.names.pop();
        self.in_const = before;
    }

    fn body(&mut self, sig: &syn::Signature, block: &syn::Block) {
        // It would call itself.
        if self.ty.ends_with("as Default>") {
            return;
        }
        let text = self.text(block);
        let inside = text[1..text.len() - 1].trim().to_owned();
        if values::is_iterator(&sig.output) {
            if !leaves(block) {
                let what = "make it empty".to_owned();
                self.add(
                    &sig.ident,
                    block.span().byte_range(),
                    Form::Empty,
                    vec![(what, String::new())],
                );
            }
            return;
        }
        let values = values::of_return(&sig.output).into_iter();
        let inside = if inside.is_empty() { "()".to_owned() } else { inside };
        let others = values.filter(|value| !is_same(value, &inside));
        let texts = others
            .map(|value| (format!("replace it with {}", value.replace("::std::", "")), value))
            .collect();
        self.add(&sig.ident, block.span().byte_range(), Form::Leave, texts);
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attrs = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            // What must be known when it is built.
            syn::Item::Const(_) | syn::Item::Static(_) | syn::Item::Enum(_) => return,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attrs) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let last = |path: &syn::Path| {
            path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default()
        };
        let ty = match &*item.self_ty {
            syn::Type::Path(path) => last(&path.path),
            other => self.text(other).to_owned(),
        };
        let ty = match &item.trait_ {
            Some((_, of, _)) => format!("<{ty} as {}>", last(of)),
            None => ty,
        };
        let before = std::mem::replace(&mut self.ty, ty);
        visit::visit_item_impl(self, item);
        self.ty = before;
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        let before = std::mem::replace(&mut self.ty, item.ident.to_string());
        visit::visit_item_trait(self, item);
        self.ty = before;
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.enter(&item.attrs, &item.sig, Some(&item.block), |this| {
            visit::visit_item_fn(this, item)
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.enter(&item.attrs, &item.sig, Some(&item.block), |this| {
            visit::visit_impl_item_fn(this, item)
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        self.enter(&item.attrs, &item.sig, item.default.as_ref(), |this| {
            visit::visit_trait_item_fn(this, item);
        });
    }

    // Constants, patterns and types are no code that runs.
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_pat(&mut self, _: &'ast Pat) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    fn visit_expr_if(&mut self, branch: &'ast syn::ExprIf) {
        if !is_planted(&branch.cond) {
            return visit::visit_expr_if(self, branch);
        }
        // The mistake itself is compiled out of the product.
        if let Some((_, other)) = &branch.else_branch {
            self.visit_expr(other);
        }
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        if !has_let(&binary.left) && !has_let(&binary.right) {
            let (left, right) = (self.text(&binary.left), self.text(&binary.right));
            let op = self.text(&binary.op);
            let texts = others(&binary.op)
                .iter()
                .map(|other| {
                    (format!("replace {op} with {other}"), format!("({left}) {other} ({right})"))
                })
                .collect();
            let whole = binary.span().byte_range();
            self.add(&binary.op, whole, Form::Instead, texts);
        }
        self.visit_expr(&binary.left);
        if !(matches!(binary.op, BinOp::And(_)) && is_planted(&binary.left)) {
            self.visit_expr(&binary.right);
        }
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        if let UnOp::Not(_) | UnOp::Neg(_) = unary.op {
            let what = format!("delete {}", self.text(&unary.op));
            let text = format!("({})", self.text(&unary.expr));
            self.add(&unary.op, unary.span().byte_range(), Form::Instead, vec![(what, text)]);
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_struct(&mut self, literal: &'ast syn::ExprStruct) {
        if literal.rest.is_some() {
            let whole = literal.span().byte_range();
            for field in &literal.fields {
                let own = field.span().byte_range();
                let after = &self.source[own.end..whole.end];
                let comma = after.find(',').map_or(own.end, |at| own.end + at + 1);
                let text =
                    self.source[whole.start..own.start].to_owned() + &self.source[comma..whole.end];
                let what = format!("delete field {}", self.text(&field.member));
                self.add(&field.member, whole.clone(), Form::Instead, vec![(what, text)]);
            }
        }
        visit::visit_expr_struct(self, literal);
    }

    fn visit_expr_match(&mut self, of: &'ast syn::ExprMatch) {
        let has_rest =
            of.arms.iter().any(|arm| arm.guard.is_none() && matches!(arm.pat, Pat::Wild(_)));
        for arm in &of.arms {
            let guard = arm.guard.as_ref().map(|(_, guard)| &**guard);
            if guard.is_some_and(has_let) {
                continue;
            }
            if has_rest && !matches!(arm.pat, Pat::Wild(_)) {
                let what = format!("delete match arm {}", one_line(self.text(&arm.pat)));
                let (range, form) = match guard {
                    Some(guard) => (guard.span().byte_range(), Form::GuardedArm),
                    None => (arm.pat.span().byte_range(), Form::Arm),
                };
                self.add(&arm.pat, range, form, vec![(what, String::new())]);
            }
            if let Some(guard) = guard {
                let text = one_line(self.text(guard));
                let to = |value: &str| {
                    (format!("replace match guard {text} with {value}"), value.to_owned())
                };
                self.instead(guard, guard, vec![to("true"), to("false")]);
            }
        }
        visit::visit_expr_match(self, of);
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a body is that value, written in another way.
fn is_same(value: &str, body: &str) -> bool {
    let body = body.replacen("Self::", "Default::", 1);
    value == body || value.ends_with(&format!("::{body}"))
}

/// What is there for tests alone.
fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| match &attr.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) => {
            list.path.is_ident("cfg") && list.tokens.to_string().contains("test")
        }
        syn::Meta::NameValue(_) => false,
    })
}

fn is_planted(cond: &Expr) -> bool {
    match cond {
        Expr::Call(call) => {
            matches!(&*call.func, Expr::Path(path) if path.path.is_ident("planted"))
        }
        Expr::Binary(binary) => matches!(binary.op, BinOp::And(_)) && is_planted(&binary.left),
        _ => false,
    }
}

/// A chain with `let` has no value of its own.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// Whether a block holds a `return` or a `?` of its own.
fn leaves(block: &syn::Block) -> bool {
    struct Leaves(bool);
    impl<'ast> Visit<'ast> for Leaves {
        fn visit_expr_return(&mut self, _: &'ast syn::ExprReturn) {
            self.0 = true;
        }
        fn visit_expr_try(&mut self, _: &'ast syn::ExprTry) {
            self.0 = true;
        }
        fn visit_expr_closure(&mut self, _: &'ast syn::ExprClosure) {}
        fn visit_item(&mut self, _: &'ast syn::Item) {}
    }
    let mut found = Leaves(false);
    found.visit_block(block);
    found.0
}

fn others(op: &BinOp) -> &'static [&'static str] {
    match op {
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::Lt(_) => &["==", ">", "<="],
        BinOp::Gt(_) => &["==", "<", ">="],
        BinOp::Le(_) => &[">"],
        BinOp::Ge(_) => &["<"],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Add(_) => &["-", "*"],
        BinOp::Sub(_) => &["+", "/"],
        BinOp::Mul(_) => &["+", "/"],
        BinOp::Div(_) => &["%", "*"],
        BinOp::Rem(_) => &["/", "+"],
        BinOp::BitAnd(_) => &["|", "^"],
        BinOp::BitOr(_) => &["&", "^"],
        BinOp::BitXor(_) => &["|", "&"],
        BinOp::Shl(_) => &[">>"],
        BinOp::Shr(_) => &["<<"],
        BinOp::AddAssign(_) => &["-=", "*="],
        BinOp::SubAssign(_) => &["+=", "/="],
        BinOp::MulAssign(_) => &["+=", "/="],
        BinOp::DivAssign(_) => &["%=", "*="],
        BinOp::RemAssign(_) => &["/=", "+="],
        BinOp::BitAndAssign(_) => &["|="],
        BinOp::BitOrAssign(_) => &["&="],
        BinOp::BitXorAssign(_) => &["|=", "&="],
        BinOp::ShlAssign(_) => &[">>="],
        BinOp::ShrAssign(_) => &["<<="],
        _ => &[],
    }
}

impl std::fmt::Display for Mutant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {}: {}", self.file, self.line, self.column, self.function, self.what)
    }
}
