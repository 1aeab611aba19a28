
def test_x(traces):
    for n,t in traces.texts.items(): print(n, len(t))
    for n,r in traces.records.items(): print(n, r.state, r.error_code, r.error_message, r.attempt_count)
    import pathlib
    for n,t in traces.texts.items(): pathlib.Path("/tmp/sec_"+n.replace(" ","_").replace("'","")).write_text(t, errors="replace")
