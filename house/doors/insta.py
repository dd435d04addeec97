import os
def pytest_runtest_logreport(report):
    if report.failed:
        with open(os.environ.get("FAILS", "/tmp/v/fails.log"), "a") as f:
            f.write(f"=== {report.nodeid} [{report.when}]\n{report.longreprtext}\n")
