//! `#[service]`: the trait as it is implemented, and its server.

use std::collections::HashMap;

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::{
    Attribute, Error, Ident, ItemTrait, ReturnType, TraitItem, TraitItemFn, Type, Visibility,
    ext::IdentExt, parse_quote,
};

use crate::{
    attributes::{cfgs, deprecated},
    blocking, client,
    errors::{Errors, with_errors},
    lifetimes,
    method::{Kind, Method},
    options::{self, Class, RpcOptions},
    send, sharded,
    signature::Stream,
};

/// The trait with its server and client; `compile_error!`s for what is not as expected.
pub(crate) fn expand(args: TokenStream, input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let Ok(mut item) = syn::parse2::<ItemTrait>(input.clone()) else {
        errors.push_at(&input, "`#[service]` goes on a trait");
        return with_errors(&input, errors);
    };
    let given_name = options::service_name(args, &mut errors);
    let name = given_name.unwrap_or_else(|| item.ident.unraw().to_string());
    let can_generate = check_trait(&item, &mut errors);
    let mut methods = Vec::new();
    for member in &mut item.items {
        match member {
            TraitItem::Fn(function) => methods.extend(prepare(function, &name, &mut errors)),
            other => errors.push_at(other, NOT_A_METHOD),
        }
    }
    refuse_collisions(&mut methods, &mut errors);
    if !can_generate {
        return with_errors(&item, errors);
    }
    let errors = errors.into_tokens();
    let service = Service {
        visibility: &item.vis,
        item: &item.ident,
        server: format_ident!("{}Server", item.ident.unraw()),
        client: format_ident!("{}Client", item.ident.unraw()),
        cfgs: cfgs(&item.attrs).collect(),
        name,
        methods,
    };
    let server = service.server();
    let client = client::generate(&service);
    let sharded = sharded::generate(&service);
    let blocking = blocking::generate(&service);
    let send = send::generate(&service);
    quote! {
        #errors
        #item
        #server
        #client
        #sharded
        #blocking
        #send
    }
}

/// A service whose trait has the expected form, as far as generated code depends on it.
pub(crate) struct Service<'a> {
    pub(crate) visibility: &'a Visibility,
    /// The trait.
    pub(crate) item: &'a Ident,
    pub(crate) server: Ident,
    pub(crate) client: Ident,
    pub(crate) cfgs: Vec<&'a Attribute>,
    /// The name on the wire.
    pub(crate) name: String,
    pub(crate) methods: Vec<Method>,
}

/// Whether the server and client of this trait can be written.
fn check_trait(item: &ItemTrait, errors: &mut Errors) -> bool {
    if let Some(token) = &item.unsafety {
        errors.push_at(token, "a service is not an `unsafe` trait");
        return false;
    }
    if let Some(token) = &item.auto_token {
        errors.push_at(token, "a service is not an `auto` trait");
        return false;
    }
    if !item.generics.params.is_empty() {
        errors.push_at(&item.generics.params, TRAIT_PARAMETER);
        return false;
    }
    true
}

/// Reads a method, and writes it as the trait has it: `fn` with `impl Future`.
fn prepare(function: &mut TraitItemFn, service: &str, errors: &mut Errors) -> Option<Method> {
    let options = RpcOptions::take(&mut function.attrs, errors);
    match Method::new(function, &options, service) {
        Ok(method) => {
            returns_future(function);
            Some(method)
        }
        Err(error) => {
            errors.push(error);
            // Implementations of the trait go on matching it.
            function.attrs.push(parse_quote!(#[allow(async_fn_in_trait)]));
            None
        }
    }
}

/// `async fn f() -> T` as `fn f() -> impl Future<Output = T>`.
fn returns_future(function: &mut TraitItemFn) {
    function.sig.asyncness = None;
    let output = match &function.sig.output {
        ReturnType::Type(_, output) => output.to_token_stream(),
        ReturnType::Default => quote!(()),
    };
    function.sig.output = parse_quote!(-> impl ::core::future::Future<Output = #output>);
}

/// Refuses each method whose id or constant an earlier one has, at its name.
fn refuse_collisions(methods: &mut Vec<Method>, errors: &mut Errors) {
    let mut ids: HashMap<u32, String> = HashMap::new();
    let mut constants: HashMap<String, String> = HashMap::new();
    methods.retain(|method| {
        let Method { id, wire_name, .. } = method;
        let same_constant = constants.insert(method.constant.to_string(), wire_name.clone());
        if let Some(first) = same_constant {
            let message = format!(
                "`{wire_name}` and `{first}` have the same name but for upper and lower case; \
                 rename one of them"
            );
            errors.push(Error::new(method.name.span(), message));
            return false;
        }
        if let Some(first) = ids.get(id) {
            let message = format!(
                "`{wire_name}` and `{first}` have the same id on the wire, {id}; rename one of \
                 them or give it an id of its own with `#[rpc(id = N)]`"
            );
            errors.push(Error::new(method.name.span(), message));
            return false;
        }
        ids.insert(*id, wire_name.clone());
        true
    });
}

impl Service<'_> {
    fn server(&self) -> TokenStream {
        let Self { visibility, item, server, client, cfgs, name, .. } = self;
        let about = format!("Serves a [`{item}`]: reads each request, calls it, and replies.");
        let classes = self.classes();
        let arms = self.methods.iter().map(|method| self.arm(method));
        let allow_deprecated = (self.methods.iter())
            .any(|method| deprecated(&method.attributes).next().is_some())
            .then(|| quote!(#[allow(deprecated)]));
        let prelude = (!self.methods.is_empty()).then(|| {
            quote!(
                use ::core::result::Result::{Err, Ok};
            )
        });
        quote! {
            #[doc = #about]
            #(#cfgs)*
            #visibility struct #server<S>(S);

            // Names that no type of a user has.
            #(#cfgs)*
            impl<__S: #item + 'static> #server<__S> {
                /// Serves `service`.
                pub const fn new(service: __S) -> Self {
                    Self(service)
                }
            }

            #(#cfgs)*
            #[automatically_derived]
            impl<__S: #item + 'static> ::ringcall::Service for #server<__S> {
                const NAME: &'static str = #name;
                const METHODS: &'static [::ringcall::MethodInfo] = #client::METHODS;
                #classes
                type State = __S;

                #[inline]
                fn state(&self) -> &__S {
                    &self.0
                }

                #allow_deprecated
                #[inline]
                fn dispatch<__P, __C>(
                    service: __P,
                    call: __C,
                ) -> impl ::core::future::Future<Output = ()>
                where
                    __P: ::core::ops::Deref<Target = Self>,
                    __C: ::core::ops::Deref<Target = ::ringcall::Incoming>,
                {
                    // Not an async function, which would keep what it is given twice.
                    async move {
                        #prelude
                        match call.method() {
                            #(#arms)*
                            _ => call.unknown_method(),
                        }
                    }
                }
            }
        }
    }

    /// The classes of the methods, where one is said to have one.
    fn classes(&self) -> Option<TokenStream> {
        let client = &self.client;
        let has_class = |method: &&Method| method.class.is_some_and(|class| class != Class::Normal);
        let arms = self.methods.iter().filter(has_class).map(|method| {
            let Method { constant, attributes, .. } = method;
            let cfgs = cfgs(attributes);
            let class = match method.class {
                Some(Class::Latency) => quote!(Latency),
                Some(Class::Bulk) => quote!(Bulk),
                Some(Class::Normal) | None => quote!(Normal),
            };
            quote!(#(#cfgs)* #client::#constant => ::ringcall::Class::#class,)
        });
        let arms: Vec<_> = arms.collect();
        (!arms.is_empty()).then(|| {
            quote! {
                const HAS_CLASSES: bool = true;

                #[allow(deprecated)]
                #[inline]
                fn class(method: u32) -> ::ringcall::Class {
                    match method {
                        #(#arms)*
                        _ => ::ringcall::Class::Normal,
                    }
                }
            }
        })
    }

    /// What the server does when this method is called.
    fn arm(&self, method: &Method) -> TokenStream {
        let Self { item, client, .. } = self;
        let Method { name, constant, attributes, .. } = method;
        let cfgs = cfgs(attributes);
        let request = lifetimes::elided(&method.request);
        let elsewhere = method.shard_by.as_ref().map(|shard_by| {
            let hash = shard_by.hash();
            quote! {
                if call.goes_elsewhere(|| #hash) {
                    return;
                }
            }
        });
        let answer = match &method.kind {
            Kind::OneWay => quote! {
                #item::#name(&service.0, call.context(), request).await;
                call.done();
            },
            Kind::Answered(answer) => {
                let reply = lifetimes::elided(&answer.reply);
                let error = lifetimes::elided(&answer.error);
                let streams = answer.streams.iter().map(stream);
                quote! {
                    call.reply::<#reply, #error>(
                        #item::#name(&service.0, call.context(), request #(, #streams)*).await,
                    );
                }
            }
        };
        quote! {
            #(#cfgs)*
            #client::#constant => {
                // Not a match around the answer: its value would be kept for as long as that takes.
                let request = match call.read::<#request>() {
                    Ok(request) => request,
                    Err(status) => return call.reject(&status),
                };
                #elsewhere
                #answer
            }
        }
    }
}

/// A stream as the call gives it to the handler.
fn stream(stream: &Stream<Type>) -> TokenStream {
    match stream {
        Stream::Source(item) => {
            let item = lifetimes::elided(item);
            quote!(call.source::<#item>())
        }
        Stream::Sink(item) => {
            let item = lifetimes::elided(item);
            quote!(call.sink::<#item>())
        }
    }
}

const NOT_A_METHOD: &str = "a service has methods only: what it needs beside them belongs to the \
    type that implements it";
const TRAIT_PARAMETER: &str = "a service has no parameters: the layouts of its messages, which \
    both ends compare, are of concrete types";

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in the server for the method, without spaces.
    fn expanded(method: TokenStream) -> String {
        let service = quote!(
            trait Kv {
                #method
            }
        );
        text(expand(TokenStream::new(), service))
    }

    fn text(tokens: TokenStream) -> String {
        tokens.to_string().replace(' ', "")
    }

    #[test]
    fn a_reply_is_what_the_handler_returns() {
        let expanded = expanded(quote! {
            async fn get<'a>(&self, cx: &Context, q: Request<'a, Q<'a>>) -> Result<R<'a>, E>;
        });
        let arm = quote! {
            KvClient::GET => {
                let request = match call.read::<Q<'_>>() {
                    Ok(request) => request,
                    Err(status) => return call.reject(&status),
                };
                call.reply::<R<'_>, E>(Kv::get(&service.0, call.context(), request).await,);
            }
        };
        assert!(expanded.contains(&text(arm)), "{expanded}");
    }

    #[test]
    fn a_one_way_call_is_done_when_its_handler_is() {
        let expanded = expanded(quote! {
            #[rpc(oneway)]
            async fn note(&self, cx: &Context, request: Request<'_, Line>);
        });
        let arm = quote! {
            KvClient::NOTE => {
                let request = match call.read::<Line>() {
                    Ok(request) => request,
                    Err(status) => return call.reject(&status),
                };
                Kv::note(&service.0, call.context(), request).await;
                call.done();
            }
        };
        assert!(expanded.contains(&text(arm)), "{expanded}");
        let method = quote! {
            fn note(&self, cx: &Context, request: Request<'_, Line>)
                -> impl ::core::future::Future<Output = ()>;
        };
        assert!(expanded.contains(&text(method)), "{expanded}");
    }

    #[test]
    fn streams_are_given_in_the_order_of_the_parameters() {
        let (source, sink) = (quote!(i: Source<I>), quote!(o: Sink<'_, O<'_>>));
        let (given_source, given_sink) = (quote!(call.source::<I>()), quote!(call.sink::<O<'_>>()));
        for (parameters, given) in [
            (quote!(#source), quote!(#given_source)),
            (quote!(#sink), quote!(#given_sink)),
            (quote!(#source, #sink), quote!(#given_source, #given_sink)),
            (quote!(#sink, #source), quote!(#given_sink, #given_source)),
        ] {
            let expanded = expanded(quote! {
                async fn f(&self, cx: &Context, q: Request<'_, Q>, #parameters) -> Result<R, E>;
            });
            let reply = quote! {
                call.reply::<R, E>(Kv::f(&service.0, call.context(), request, #given).await,);
            };
            assert!(expanded.contains(&text(reply)), "{expanded}");
        }
    }

    #[test]
    fn a_wrong_option_is_the_only_error_of_its_method() {
        let expanded = expanded(quote! {
            #[rpc(oneway, timeout = "5x")]
            async fn note(&self, cx: &Context, request: Request<'_, Line>);
        });
        assert_eq!(expanded.matches("compile_error!").count(), 1);
        assert!(expanded.contains("KvClient::NOTE=>"));
    }
}
