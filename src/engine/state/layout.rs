//! Binds [`STATE_FORMAT`] to the layout of the state: all types, fields and lengths as their deserialization visits them,
//! and the numbers with which keys and rules are stored.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::{Deserialize, de};

use super::*;
use crate::detector::DetectorId;
use crate::key::Class;
use crate::verdict::RuleId;

const STORED: &str = include_str!("layout.txt");

#[test]
fn state_format_is_bound_to_the_layout() {
    let found = layout();
    if found != STORED {
        let path = std::env::temp_dir().join("tokenwarden-state-layout.txt");
        std::fs::write(&path, &found).expect("a file");
        let changed = found.lines().zip(STORED.lines()).find(|(found, stored)| found != stored);
        panic!(
            "the layout of the state has changed: {changed:?}\nRaise STATE_FORMAT in src/engine/state.rs, and copy {} \
             to src/engine/state/layout.txt",
            path.display()
        );
    }
}

#[test]
fn layout_contains_nested_and_renamed_fields() {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only the layout is used")]
    struct Outer {
        first: Option<Box<[Inner]>>,
        second: BTreeMap<u64, (u8, f32)>,
        third: [i64; 3],
    }
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only the layout is used")]
    struct Inner(std::num::NonZeroU32, String);
    let mut types = Types::default();
    assert_eq!(types.of::<Outer>(), "Outer");
    assert_eq!(
        types.to_string(),
        "Inner\n  u32\n  text\nOuter\n  first: option of list of Inner\n  second: map of u64 to (u8, f32)\n  third: \
         [i64; 3]\n"
    );
}

fn layout() -> String {
    let mut types = Types::default();
    types.of::<State>();
    let rules: Vec<_> = RuleId::ALL.iter().map(|rule| rule.as_str()).collect();
    let detectors: Vec<_> = DetectorId::all().map(DetectorId::name).collect();
    format!(
        "format {STATE_FORMAT}\nclasses of keys: {}\nrules: {}\ndetectors: {}\n{types}",
        Class::Segment as u64,
        rules.join(" "),
        detectors.join(" ")
    )
}

/// Names and fields of types. Types with the same name and other fields are numbered.
#[derive(Default)]
struct Types {
    known: Vec<(String, String)>,
}

impl Types {
    fn of<T: for<'de> Deserialize<'de>>(&mut self) -> String {
        let mut layout = String::new();
        T::deserialize(Tracer { types: self, layout: &mut layout }).map(drop).expect("values of 1 are valid");
        layout
    }

    /// Name of a type with these fields.
    fn add(&mut self, name: &str, fields: &str) -> String {
        let same_name = self.known.iter().filter(|(known, _)| known.split('#').next() == Some(name));
        let mut count = 0;
        for (known, of_known) in same_name {
            if of_known == fields {
                return known.clone();
            }
            count += 1;
        }
        let name = if count == 0 { name.to_owned() } else { format!("{name}#{}", count + 1) };
        self.known.push((name.clone(), fields.to_owned()));
        name
    }
}

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.known.iter().try_for_each(|(name, fields)| write!(f, "{name}\n{fields}"))
    }
}

/// Gives each number the value 1 and each list one entry, and writes what was asked for.
struct Tracer<'a> {
    types: &'a mut Types,
    layout: &'a mut String,
}

type Error = de::value::Error;

impl Tracer<'_> {
    fn leaf(self, name: &str) {
        self.layout.push_str(name);
    }
}

macro_rules! leaves {
    ($($method:ident $name:literal $visit:ident($value:expr);)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.leaf($name);
            visitor.$visit($value)
        }
    )+};
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Error;

    leaves! {
        deserialize_bool "bool" visit_bool(true);
        deserialize_i8 "i8" visit_i8(1);
        deserialize_i16 "i16" visit_i16(1);
        deserialize_i32 "i32" visit_i32(1);
        deserialize_i64 "i64" visit_i64(1);
        deserialize_u8 "u8" visit_u8(1);
        deserialize_u16 "u16" visit_u16(1);
        deserialize_u32 "u32" visit_u32(1);
        deserialize_u64 "u64" visit_u64(1);
        deserialize_f32 "f32" visit_f32(1.0);
        deserialize_f64 "f64" visit_f64(1.0);
        deserialize_string "text" visit_str("x");
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("nothing");
        visitor.visit_unit()
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("the codec does not describe its values"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.layout.push_str("option of ");
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut parts = Parts::new(self.types, 1);
        let value = visitor.visit_seq(&mut parts)?;
        write!(self.layout, "list of {}", parts.found.join("")).expect("text");
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        let mut parts = Parts::new(self.types, length);
        let value = visitor.visit_seq(&mut parts)?;
        let found = &parts.found;
        if length > 1 && found.iter().all(|part| *part == found[0]) {
            write!(self.layout, "[{}; {length}]", found[0]).expect("text");
        } else {
            write!(self.layout, "({})", found.join(", ")).expect("text");
        }
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut parts = Parts::new(self.types, 2);
        let value = visitor.visit_map(&mut parts)?;
        write!(self.layout, "map of {}", parts.found.join(" to ")).expect("text");
        Ok(value)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        let mut inner = String::new();
        let value = visitor.visit_newtype_struct(Tracer { types: self.types, layout: &mut inner })?;
        self.layout.push_str(&self.types.add(name, &format!("  {inner}\n")));
        Ok(value)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut parts = Parts::new(self.types, length);
        let value = visitor.visit_seq(&mut parts)?;
        let fields: Vec<_> = parts.found.iter().map(|part| format!("  {part}\n")).collect();
        self.layout.push_str(&self.types.add(name, &fields.concat()));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut parts = Parts::new(self.types, fields.len());
        let value = visitor.visit_seq(&mut parts)?;
        let fields: Vec<_> =
            fields.iter().zip(&parts.found).map(|(field, part)| format!("  {field}: {part}\n")).collect();
        self.layout.push_str(&self.types.add(name, &fields.concat()));
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let value = visitor.visit_enum(FirstVariant)?;
        self.layout.push_str(&self.types.add(name, &format!("  one of {}\n", variants.join(" "))));
        Ok(value)
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str bytes byte_buf unit_struct identifier ignored_any
    }
}

/// Elements of a list, tuple, struct or map.
struct Parts<'a> {
    types: &'a mut Types,
    left: usize,
    found: Vec<String>,
}

impl<'a> Parts<'a> {
    fn new(types: &'a mut Types, left: usize) -> Self {
        Self { types, left, found: Vec::new() }
    }

    fn next<'de, T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let mut layout = String::new();
        let value = seed.deserialize(Tracer { types: self.types, layout: &mut layout })?;
        self.found.push(layout);
        Ok(Some(value))
    }
}

impl<'de> SeqAccess<'de> for &mut Parts<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.next(seed)
    }
}

impl<'de> MapAccess<'de> for &mut Parts<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        self.next(seed)?.ok_or_else(|| Error::custom("a value follows its key"))
    }
}

/// The first variant of an enum. All enums of a state have variants without content only.
struct FirstVariant;

impl<'de> EnumAccess<'de> for FirstVariant {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let first: U32Deserializer<Error> = 0_u32.into_deserializer();
        Ok((seed.deserialize(first)?, self))
    }
}

impl<'de> VariantAccess<'de> for FirstVariant {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(Error::custom("describe the content of variants in the layout"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("describe the content of variants in the layout"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(Error::custom("describe the content of variants in the layout"))
    }
}
