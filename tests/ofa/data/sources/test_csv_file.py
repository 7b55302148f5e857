import pytest

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import load_data


@pytest.fixture
def table(tmp_path, picture):
    """Writes a table of pictures that exist: `table(text)` returns its configuration; options are further keys."""
    for i in range(12):
        picture([20 * i, 90, 40]).save(tmp_path / f"{i}.png")

    def write(text, name="pets.csv", **options):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        return DataConfig(name="csv", folder=tmp_path / name, options=options)

    return write


def rows(header="path,label", n=12, ending=""):
    return "\n".join([header, *(f"{i}.png,{'cat' if i % 2 else 'dog'}{ending}" for i in range(n))])


def test_columns_and_the_delimiter_may_have_other_names(table):
    text = rows("file,animal,set", ending=",training").replace(",", ";")
    config = table(text, image="file", label="animal", split="set", delimiter=";")
    data = load_data(config)
    assert (data.name, data.labels) == ("pets", ("cat", "dog"))
    assert len(data.train) + len(data.validation) + len(data.test) == 12


def test_a_file_for_each_split(table, tmp_path):
    for name in ("Training.csv", "valid_1.csv", "TEST.csv"):
        table(rows(), name)
    data = load_data(DataConfig(name="csv", folder=tmp_path))
    assert [len(images) for images in (data.train, data.validation, data.test)] == [12, 12, 12]


def test_classes_that_are_numbers_are_in_the_order_of_numbers(table):
    text = "\n".join(["path,label", *(f"{i}.png,{(2, 10, 9)[i % 3]}" for i in range(12))])
    assert load_data(table(text)).labels == ("2", "9", "10")


def test_absolute_paths_are_read_where_they_lie(table, tmp_path):
    lines = rows().splitlines()
    config = table("\n".join([lines[0], *(f"{tmp_path}/{line}" for line in lines[1:])]))
    assert load_data(config).train[0][0].shape == (3, 10, 12)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (rows("file,label"), r"pets\.csv has no column 'path'; choose from file, label; see data\.options"),
        (rows("path,class"), r"pets\.csv has no column 'label'; "),
        ("", r"pets\.csv has no column 'path'"),
        (
            rows(header="path,label,split", ending=",dev"),
            "line 2: split 'dev' is not allowed; use one of train,",
        ),
        (rows() + "\n7.png,\n", "pets.csv, line 14: needs a value for 'path' and for 'label'"),
        (rows() + "\n70.png,cat\n", r"cannot read the image .*70\.png \(.*No such file"),
        (rows() + '\n"7.png,cat\n', r"cannot read .*pets\.csv \(unexpected end of data\); save it as CSV in UTF-8"),
        (rows(n=2), "class 'cat' has too few images to split"),
        (rows().replace("dog", "cat"), r"has the classes \('cat',\); a classifier needs at least two"),
        (rows("path,label,split", 8, ",test"), "data set 'pets' has no training images, only"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_error(table, text, problem):
    with pytest.raises(DataError, match=problem):
        load_data(table(text))


def test_a_table_in_another_encoding_is_one_error(table):
    config = table(rows())
    config.folder.write_bytes(rows().replace("cat", "größe").encode("latin-1"))
    with pytest.raises(DataError, match=r"cannot read .*pets\.csv \('utf-8' codec .*; save it as CSV in UTF-8"):
        load_data(config)


def test_files_of_which_only_some_name_a_split_are_refused(table, tmp_path):
    for name in ("train.csv", "others.csv"):
        table(rows(), name)
    with pytest.raises(DataError, match=r"others\.csv names no split, but .*train\.csv does; let the name"):
        load_data(DataConfig(name="csv", folder=tmp_path))


def test_a_class_without_training_images_is_refused(table):
    text = rows("path,label,split", ending=",train") + "\n3.png,emu,test\n"
    with pytest.raises(DataError, match="'pets' has images of class 'emu' in test but none in train; add some"):
        load_data(table(text))
