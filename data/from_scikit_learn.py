"""Writes breast_cancer.csv and digits.csv beside this file from the copies in scikit-learn's wheel.

    pip install scikit-learn && python data/from_scikit_learn.py

Values are unchanged: every number is written in the shortest form that reads back as the same float.
"""

from pathlib import Path

from sklearn.datasets import load_breast_cancer, load_digits

HERE = Path(__file__).parent


def number(value):
    """Shortest decimal that reads back as the same float: 1001.0 is written 1001."""
    return repr(float(value)).removesuffix(".0")


def write(name, columns, rows):
    lines = [",".join(columns), *(",".join(row) for row in rows)]
    (HERE / name).write_bytes(("\n".join(lines) + "\n").encode())
    print(f"{name}: {len(rows)} rows, {len(columns)} columns")


def breast_cancer():
    data = load_breast_cancer()
    columns = [str(name).replace(" ", "_") for name in data.feature_names] + ["diagnosis"]
    rows = [
        [number(x) for x in features] + [str(data.target_names[label])]
        for features, label in zip(data.data, data.target)
    ]
    write("breast_cancer.csv", columns, rows)


def digits():
    data = load_digits()
    columns = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)] + ["digit"]
    rows = [[number(x) for x in features] + [str(label)] for features, label in zip(data.data, data.target)]
    write("digits.csv", columns, rows)


breast_cancer()
digits()
