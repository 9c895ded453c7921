use super::*;

#[test]
fn an_endpoint_needs_a_binary_with_the_exporter() {
    let refused = unsupported(Some("http://collector:4318"), false).expect("it can't");
    assert!(refused.contains("the feature \"otlp\""), "{refused}");
    for (endpoint, otlp) in [(Some("http://collector:4318"), true), (None, false), (None, true)] {
        assert_eq!(unsupported(endpoint, otlp), None);
    }
}
